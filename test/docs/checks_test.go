package docs

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	servicedoctor "github.com/certfetcher/certfetcher/internal/certservice/doctor"
	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/doctor"
)

// docs/checks.md has a section for each check of both doctors, to which their reports lead, and for no other; it says
// what each doctor expects in the doctor's own words.
func TestChecks_areExplained(t *testing.T) {
	sections := map[string]string{}
	for _, section := range regexp.MustCompile(`(?m)^#{1,3} `).Split(readAll(t, "docs/checks.md"), -1) {
		title, text, _ := strings.Cut(section, "\n")
		sections[checks.ID(title)] = strings.Join(strings.Fields(text), " ")
	}
	explained := 0
	for program, expected := range map[string]map[string]string{
		"certfetcher": doctor.Expected, "certservice": servicedoctor.Expected,
	} {
		for name, text := range expected {
			section := sections[checks.ID(name)]
			assert.Contains(t, section, "- "+program+": "+text+".", name)
		}
		for id, section := range sections {
			if strings.Contains(section, "- "+program+": ") {
				_, known := expected[strings.ReplaceAll(id, "-", " ")]
				assert.True(t, known, "docs/checks.md explains %s of %s, which is no check", id, program)
				explained++
			}
		}
	}
	assert.Equal(t, len(doctor.Expected)+len(servicedoctor.Expected), explained)
}

func TestChecks_fieldsOfTheJSON_areExplained(t *testing.T) {
	document := readAll(t, "docs/checks.md")
	for _, field := range reflect.VisibleFields(reflect.TypeFor[checks.Check]()) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		assert.Contains(t, document, "\n| `"+name+"` | ")
	}
}
