package config

import (
	"io"

	"github.com/certfetcher/certfetcher/internal/environ"
)

// WriteUsage prints every variable with its rule and default, for --help.
func WriteUsage(w io.Writer) error { return environ.WriteUsage(w, &environment{}) }

// WriteMarkdown prints the same as a table for the README.
func WriteMarkdown(w io.Writer) error { return environ.WriteMarkdown(w, &environment{}) }

// Names are the variables, with the twins of secrets.
func Names() []string { return environ.Names(&environment{}) }
