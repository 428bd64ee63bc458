package checks

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/certfetcher/certfetcher/internal/program"
)

// WaitFlag is the flag by which a doctor waits.
var WaitFlag = program.Flag{Name: "wait", Value: "DURATION",
	Help: "make the checks again until none fails, or until a time such as 90s is over"}

// RunCommand runs the checks as the command says, which has program.OutputFlag and WaitFlag, and
// prints the report. It returns the report's exit code, or the one for a run of the program that a
// signal ended.
func RunCommand(c *program.Call, name string, interrupted int, run func(context.Context) Report) int {
	var most time.Duration
	if text := c.Flag(WaitFlag.Name); text != "" {
		var err error
		if most, err = time.ParseDuration(text); err != nil || most < 0 {
			return c.WrongUsage(fmt.Sprintf("--wait is %q, want a duration such as 90s", text))
		}
	}
	report := Wait(c.Context, most, c.Stderr, run)
	if c.Context.Err() != nil {
		fmt.Fprintf(c.Stderr, "%s: interrupted by a signal\n", name)
		return interrupted
	}
	if code := c.Print(func(w io.Writer) error { return report.Write(w, c.Flag(program.OutputFlag.Name)) }); code != 0 {
		return code
	}
	return report.ExitCode()
}
