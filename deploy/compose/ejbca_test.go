package compose

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const secretOfTest = "the-secret"

// prepare writes the secret into a directory, and returns the environment in which ejbca-configure.sh works there.
func prepare(dir string) ([]string, error) {
	bin := fixture.Must(filepath.Abs("testdata/bin"))
	err := os.WriteFile(filepath.Join(dir, "iak"), []byte(secretOfTest), 0o600)
	return []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "STATE=" + dir, "SECRET=" + secretOfTest,
		"CA_NAME=TestCA", "CA_DN=CN=Test CA,O=Example", "CMP_ALIAS=cmpRA", "CMP_SECRET_FILE=" + dir + "/iak",
		"UPDATES_FOR=Example", "ROOT_FILE=" + dir + "/root.pem",
		"WAIT_SECONDS=20", "SETTLE_SECONDS=0", "INTERVAL=0",
	}, err
}

func TestEJBCAConfigure_asTheScriptsSay(t *testing.T) {
	fixture.RequirePrograms(t, "bash")
	script := fixture.Must(filepath.Abs("ejbca-configure.sh"))
	fixture.RunScripts(t, testscript.Params{
		Dir: fixture.Scripts(t, "testdata/configure.txtar"),
		Setup: func(e *testscript.Env) error {
			environment, err := prepare(e.WorkDir)
			e.Vars = append(append(e.Vars, environment...), "TESTDATA="+filepath.Dir(script)+"/testdata",
				"MEMBER=addrolemember --role Certificate updates --caname TestCA "+
					"--with CertificateAuthenticationToken:WITH_ORGANIZATION --value Example$")
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"configure": func(s *testscript.TestScript, fails bool, refused []string) {
				_ = os.Remove(s.MkAbs("calls"))
				s.Setenv("FAIL", strings.Join(refused, " "))
				if err := s.Exec("bash", script); fails != (err != nil) {
					s.Fatalf("ejbca-configure.sh ends with %v", err)
				}
				if strings.Contains(s.ReadFile("stdout")+s.ReadFile("stderr"), secretOfTest) {
					s.Fatalf("the secret is shown")
				}
				if calls, err := os.ReadFile(s.MkAbs("calls")); err == nil {
					text := regexp.MustCompile(`-d \S+`).ReplaceAllString(string(calls), "-d DIRECTORY")
					s.Check(os.WriteFile(s.MkAbs("calls"), []byte(text), 0o600))
				}
			},
		},
	})
}

// EJBCA reads profiles with Java's own format for beans. In its map a field of kind k, the nth, has its value under
// 100n+k, and 1,000,000, 2,000,000 and 3,000,000 more for used, required and modifiable.
func TestEJBCAConfigure_profile_isWhatJavaReads(t *testing.T) {
	dir := t.TempDir()
	command := exec.Command(fixture.RequirePrograms(t, "bash")[0], "ejbca-configure.sh")
	command.Env = fixture.Must(prepare(dir))
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)
	found := fixture.Must(filepath.Glob(filepath.Join(dir, "profiles", "entityprofile_certfetcher-*.xml")))
	require.Len(t, found, 1)
	out, err = fixture.Java(t, "", "testdata/ReadProfile.java", found[0]).CombinedOutput()
	require.NoError(t, err, "%s", out)
	golden.File(t, "profile.golden", string(out))
}
