package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// recipe is what the Dockerfile says of an image FROM scratch.
type recipe struct {
	labels     map[string]string
	user       string
	ports      map[string]struct{}
	entrypoint []string
	env        []string
	copies     []copied
}

// copied is a COPY of a program, or of the empty directory that gives a volume its owner.
type copied struct {
	from, to string
	owned    bool // by the user of the images
}

// owner is the user of the images, whom COPY --chown names.
const owner = 65532

var words = regexp.MustCompile(`[^\s"=]+="[^"]*"|\S+`)

// readRecipes reads the images of the Dockerfile from the stage "image" on, so that those of a release are what
// docker build makes. It knows the instructions that stand there, and fails at any other.
func readRecipes(path string, arguments map[string]string) (map[string]*recipe, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	_, text, found := strings.Cut(string(content), "\nFROM scratch AS image\n")
	if !found {
		return nil, fmt.Errorf("%s has no stage FROM scratch AS image", path)
	}
	base := &recipe{labels: map[string]string{}, ports: map[string]struct{}{}}
	recipes, now := map[string]*recipe{"image": base}, base
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		line = os.Expand(strings.TrimSpace(line), func(name string) string { return arguments[name] })
		instruction, rest, _ := strings.Cut(line, " ")
		fields := words.FindAllString(rest, -1)
		switch {
		case instruction == "" || instruction[0] == '#' || instruction == "ARG":
		case instruction == "FROM" && len(fields) == 3 && recipes[fields[0]] != nil:
			now = recipes[fields[0]].clone()
			recipes[fields[2]] = now
		case instruction == "FROM" && len(fields) == 3 && fields[0] == "scratch": // bills of materials: no image
			now = (&recipe{}).clone()
		case instruction == "LABEL":
			for _, field := range fields {
				name, value, _ := strings.Cut(field, "=")
				now.labels[name] = strings.Trim(value, `"`)
			}
		case instruction == "USER" && rest == fmt.Sprintf("%d:%d", owner, owner):
			now.user = rest
		case instruction == "ENV":
			now.env = append(now.env, fields...)
		case instruction == "EXPOSE":
			now.ports[rest+"/tcp"] = struct{}{}
		case instruction == "ENTRYPOINT" && json.Unmarshal([]byte(rest), &now.entrypoint) == nil:
		case instruction == "COPY" && len(fields) == 3 && fields[0] == "--from=build",
			instruction == "COPY" && len(fields) == 2:
			now.copies = append(now.copies, copied{from: fields[len(fields)-2], to: fields[len(fields)-1]})
		case instruction == "COPY" && len(fields) == 4 && fields[1] == fmt.Sprintf("--chown=%d:%d", owner, owner):
			now.copies = append(now.copies, copied{fields[2], fields[3], true})
		default:
			return nil, fmt.Errorf("%s: a release cannot follow the line %q", path, line)
		}
	}
	return recipes, nil
}

func (r *recipe) clone() *recipe {
	made := *r
	made.labels, made.ports = map[string]string{}, map[string]struct{}{}
	for name, value := range r.labels {
		made.labels[name] = value
	}
	for port := range r.ports {
		made.ports[port] = struct{}{}
	}
	return &made
}
