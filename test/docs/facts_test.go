package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// binDir holds the programs; --help of each, and of each command, says what there is.
var binDir string

func TestMain(m *testing.M) {
	fixture.RunTests(m, &binDir)
}

var helps sync.Map

// help is what a program, or a command of it, prints about itself.
func help(command string) (string, error) {
	if text, found := helps.Load(command); found {
		return text.(string), nil
	}
	words := strings.Fields(command)
	if !slices.Contains(words, "help") {
		words = append(words, "--help")
	}
	out, err := exec.Command(filepath.Join(binDir, words[0]), words[1:]...).Output()
	helps.Store(command, string(out))
	return string(out), err
}

// fact is a row of testdata/facts.yaml.
type fact struct {
	Shows, Document, Only, Path, In, Text, Match, Help string

	shows *regexp.Regexp
	seen  bool
}

var facts = sync.OnceValue(func() (list []*fact) {
	if err := yaml.Unmarshal(fixture.Must(os.ReadFile("testdata/facts.yaml")), &list); err != nil {
		panic(err)
	}
	for _, f := range list {
		f.shows = regexp.MustCompile("^(?:" + f.Shows + ")$")
	}
	return list
})

// checkShown holds a text against all facts about it, and says whether there are any, as about each command.
func checkShown(t *testing.T, place, shown string) (known bool) {
	t.Helper()
	document, _, _ := strings.Cut(place, ":")
	for _, f := range facts() {
		if f.Only == document && f.check(t, place, shown) {
			return true
		}
	}
	for _, f := range facts() {
		known = f.Only == "" && f.check(t, place, shown) || known
	}
	assert.True(t, known || !ours.MatchString(shown), "%s: no row knows %s", place, shown)
	return known
}

// check says whether the text is what the fact is about, and holds it against the fact.
func (f *fact) check(t *testing.T, place, shown string) bool {
	t.Helper()
	at := f.shows.FindStringSubmatchIndex(shown)
	if at == nil {
		return false
	}
	f.seen = true
	expand := func(template string) string {
		return string(f.shows.ExpandString(nil, template, shown, at))
	}
	if document, _, _ := strings.Cut(place, ":"); f.Document != "" {
		assert.Equal(t, f.Document, document, "%s: %s belongs into one document", place, shown)
	}
	if f.Path != "" {
		_, err := os.Stat(filepath.Join(root, expand(f.Path)))
		assert.NoError(t, err, "%s: %s", place, shown)
	}
	if f.In != "" {
		match := regexp.QuoteMeta(expand(f.Text))
		if f.Match != "" {
			match = expand(f.Match)
		}
		found := regexp.MustCompile(match).MatchString(readAll(t, expand(f.In)))
		assert.True(t, found, "%s: %s: %q is not in %s", place, shown, match, expand(f.In))
	}
	if f.Help != "" {
		text, err := help(expand(f.Help))
		require.NoError(t, err, "%s: %s", place, shown)
		for _, name := range option.FindAllStringSubmatch(shown, -1) {
			has := regexp.MustCompile(`(?:^|[^-\w])` + name[1] + `(?:$|[^-\w])`).MatchString
			assert.True(t, has(text+" --help "), "%s: %s: --help has no such option", place, shown)
		}
	}
	return true
}

var option = regexp.MustCompile(`[ \[](--?\w[\w-]*)`)

// readAll joins the files of patterns.
func readAll(t *testing.T, patterns string) string {
	t.Helper()
	var all strings.Builder
	for _, pattern := range strings.Fields(patterns) {
		paths := fixture.Must(filepath.Glob(filepath.Join(root, pattern)))
		require.NotEmpty(t, paths, pattern)
		for _, path := range paths {
			all.Write(fixture.Must(os.ReadFile(path)))
		}
	}
	return all.String()
}

var (
	codeSpan = regexp.MustCompile("`[^`]+`")
	ours     = regexp.MustCompile(`^(certfetcher|certservice|devca|make|go|docker|kubectl|helm) `)
	inside   = regexp.MustCompile(`^kubectl exec .* -- /`)
)

// spans are what stands in a document's prose as code.
func (d document) spans() (list []string) {
	for _, span := range codeSpan.FindAllString(d.prose, -1) {
		list = append(list, strings.Join(strings.Fields(strings.Trim(span, "`")), " "))
	}
	return list
}

func TestDocuments_whatTheyShow_isThere(t *testing.T) {
	for _, d := range documents(t) {
		for _, b := range d.blocks {
			if b.language != "sh" {
				continue
			}
			for _, words := range commands(t, b) {
				for ; assignment.MatchString(words[0]); words = words[1:] {
					name, _, _ := strings.Cut(words[0], "=")
					assert.True(t, isVariable(t, name), "%s: nothing reads %s", b.place, name)
				}
				command := inside.ReplaceAllString(strings.Join(words, " "), "")
				assert.True(t, checkShown(t, b.place, command), "no row knows %s", command)
			}
		}
		for _, span := range d.spans() {
			checkShown(t, d.path, span)
		}
	}
	for _, f := range facts() {
		assert.True(t, f.seen, "no document shows %s", f.Shows)
	}
}

var assignment = regexp.MustCompile(`^[A-Z][A-Z0-9_]*=`)

// intoFile is where a command keeps its output; nothing is to be written.
var intoFile = regexp.MustCompile(` >\S+`)

// commands splits a block into commands, and these into words as a shell does.
func commands(t *testing.T, b block) (list [][]string) {
	t.Helper()
	script := ""
	for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
		line = intoFile.ReplaceAllString(line, "")
		script += `printf '%s\n' ` + line + "\nwait\necho\n" // so that nothing is run
	}
	out, err := exec.Command("sh", "-ec", script).Output()
	require.NoError(t, err, "%s: %s", b.place, b.text)
	for text := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n\n") {
		if text = strings.TrimSpace(text); text != "" {
			list = append(list, strings.Split(text, "\n"))
		}
	}
	return list
}
