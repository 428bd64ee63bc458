package notify

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
)

// commands are the children that notifiers wait for. It is one set because a process has its children in one.
var commands = struct {
	sync.Mutex
	pids map[int]bool
}{pids: map[int]bool{}}

// startCommand starts cmd, whose end ReapOrphans leaves to the caller. ended must be called after that.
func startCommand(cmd *exec.Cmd) (ended func(), err error) {
	commands.Lock()
	defer commands.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	commands.pids[pid] = true
	return func() {
		commands.Lock()
		defer commands.Unlock()
		delete(commands.pids, pid)
	}, nil
}

// ReapOrphans takes away ended processes that nothing waits for, until ctx is done. Where certfetcher is
// process 1 of its container, as it is without a shared process namespace, whatever a command leaves
// behind becomes its child, and would stay as a zombie. Elsewhere there are no such children.
func ReapOrphans(ctx context.Context) {
	ended := make(chan os.Signal, 1) // one that waits there stands for all that have ended since
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		reapOrphans()
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
	}
}

func reapOrphans() {
	commands.Lock() // so that every child that is started meanwhile is known
	defer commands.Unlock()
	all, _ := processes("/proc") // without it nothing is known
	self := os.Getpid()
	for _, p := range all {
		if p.parent == self && p.ended() && !commands.pids[p.pid] {
			_, _ = syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
		}
	}
}
