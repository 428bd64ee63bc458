package config

import (
	"io"

	"github.com/certfetcher/certfetcher/internal/program"
)

// WriteUsage prints every variable with its rule and default, for --help.
func WriteUsage(w io.Writer) error { return program.WriteUsage(w, &environment{}) }

// WriteMarkdown prints the same as a table for the README.
func WriteMarkdown(w io.Writer) error { return program.WriteMarkdown(w, &environment{}) }

// Names are the variables, with the twins of secrets.
func Names() []string { return program.VariableNames(&environment{}) }
