package client

import (
	"encoding/json"
	"errors"
	"fmt"
)

// jsonProblem words an error of encoding/json without the types of Go.
func jsonProblem(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax) && syntax.Error() == "unexpected end of JSON input":
		return fmt.Sprintf("it is cut short: it ends after %d bytes in the middle of a value", syntax.Offset)
	case errors.As(err, &syntax):
		return fmt.Sprintf("it is no JSON: %v at byte %d", syntax, syntax.Offset)
	case errors.As(err, &kind) && kind.Field == "":
		return fmt.Sprintf("it is a JSON %s, want an object", kind.Value)
	case errors.As(err, &kind):
		return fmt.Sprintf("its field %q has a JSON %s, want a list of texts (byte %d)",
			kind.Field, kind.Value, kind.Offset)
	}
	return "it is no JSON: " + err.Error()
}
