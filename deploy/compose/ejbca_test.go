package compose

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const secretOfTest = "the-secret"

// instance is an EJBCA with its volume, and the volume with the root.
type instance struct {
	t        *testing.T
	dir      string
	settings []string
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	i := &instance{t: t, dir: t.TempDir()}
	i.write("iak", secretOfTest)
	return i
}

func (i *instance) write(name, content string) {
	i.t.Helper()
	require.NoError(i.t, os.WriteFile(filepath.Join(i.dir, name), []byte(content), 0o600))
}

// configure runs ejbca-configure.sh, with commands that have the text failing; none when empty. It returns what
// EJBCA was asked.
func (i *instance) configure(failing string) (calls, output string, err error) {
	i.t.Helper()
	programs := fixture.Must(filepath.Abs("testdata/bin"))
	command := exec.Command(fixture.RequirePrograms(i.t, "bash")[0], "ejbca-configure.sh")
	command.Env = append([]string{
		"PATH=" + programs + ":" + os.Getenv("PATH"), "STATE=" + i.dir, "FAIL=" + failing, "SECRET=" + secretOfTest,
		"CA_NAME=TestCA", "CA_DN=CN=Test CA,O=Example", "CMP_ALIAS=cmpRA",
		"CMP_SECRET_FILE=" + filepath.Join(i.dir, "iak"), "UPDATES_FOR=Example",
		"ROOT_FILE=" + i.root(), "WAIT_SECONDS=20", "SETTLE_SECONDS=0", "INTERVAL=0",
	}, i.settings...)
	i.write("calls", "")
	out, err := command.CombinedOutput()
	assert.NotContains(i.t, string(out), secretOfTest)
	return i.read("calls"), string(out), err
}

// restart is what happens to the CAs when EJBCA is restarted.
func (i *instance) restart() {
	i.t.Helper()
	for _, name := range []string{"restarted", "starting", "settling"} {
		i.write(name, "")
	}
}

func (i *instance) root() string { return filepath.Join(i.dir, "root.pem") }

func (i *instance) read(name string) string {
	i.t.Helper()
	content := fixture.Must(os.ReadFile(filepath.Join(i.dir, name)))
	return string(content)
}

// succeed is configure without an error.
func (i *instance) succeed(failing string) (calls, output string) {
	i.t.Helper()
	calls, output, err := i.configure(failing)
	require.NoError(i.t, err, output)
	return calls, output
}

func (i *instance) assertRoot() {
	i.t.Helper()
	assert.Equal(i.t, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", i.read("root.pem"))
}

const (
	makesCA     = "ca init --caname TestCA --dn CN=Test CA,O=Example --tokenType soft --tokenPass null "
	makesAlias  = "config cmp addalias --alias cmpRA\n"
	firstUpdate = "config cmp updatealias --alias cmpRA --key operationmode --value ra\n"
	lastUpdate  = "config cmp updatealias --alias cmpRA --key ra.certificateprofile --value SERVER\n"
	addsMember  = "roles addrolemember --role Certificate updates --caname TestCA --with " +
		"CertificateAuthenticationToken:WITH_ORGANIZATION --value Example\n"
)

func TestEJBCAConfigure_onANewInstance_makesTheCAAndTheAlias(t *testing.T) {
	i := newInstance(t)
	calls, _ := i.succeed("")
	golden.File(t, "calls.golden", profileDirectory.ReplaceAllString(calls, "DIRECTORY"))
	i.assertRoot()
}

// profileDirectory is the script's own for profiles.
var profileDirectory = regexp.MustCompile(`/tmp\S+`)

// Another profile may have the number already; EJBCA then gives ours another one.
func TestEJBCAConfigure_profileNumberThatIsTaken_usesTheOneThatEJBCAGave(t *testing.T) {
	i := newInstance(t)
	require.NoError(t, os.Mkdir(filepath.Join(i.dir, "profiles"), 0o700))
	i.write("profiles/entityprofile_other-1402607812.xml", "x")
	i.succeed("")
	assert.Equal(t, "77\n", i.read("value.ra.endentityprofileid"))
}

// The CA is online again, and what is complete is not done a second time.
func TestEJBCAConfigure_afterARestart_onlyWritesTheRoot(t *testing.T) {
	i := newInstance(t)
	i.succeed("")
	i.restart()
	i.settings = []string{"SETTLE_SECONDS=20"}
	calls, output := i.succeed("")
	assert.NotContains(t, output, "not healthy", "for a moment it was")
	assert.Equal(t, "ca listcas\nca getcacert --caname TestCA -f /dev/stdout\n", calls)
	i.assertRoot()
}

// As with a CA that an earlier script made: it can never sign again, so the script says so and ends.
func TestEJBCAConfigure_caThatIsOffline_endsWithWhatEJBCASays(t *testing.T) {
	i := newInstance(t)
	i.succeed("")
	i.write("token", "random")
	i.restart()
	before := time.Now()
	_, output, err := i.configure("")
	require.Error(t, err)
	assert.Less(t, time.Since(before), 15*time.Second, "it waits")
	assert.Contains(t, output, "EJBCA is not healthy: CA Token is not active")
	assert.Contains(t, output, "docker compose down -v")
	assert.NoFileExists(t, i.root())
}

func TestEJBCAConfigure_ejbcaThatNeverStarts_ends(t *testing.T) {
	i := newInstance(t)
	i.settings = []string{"WAIT_SECONDS=0"}
	i.restart()
	calls, output, err := i.configure("")
	require.Error(t, err)
	assert.Contains(t, output, "an answer of EJBCA is still missing after 0 seconds")
	assert.Empty(t, calls)
}

// The secret is in the text with which EJBCA refuses; the rest of the text is shown.
func TestEJBCAConfigure_refusedSetting_isShownWithoutTheSecret(t *testing.T) {
	i := newInstance(t)
	_, output, err := i.configure("--key authenticationparameters")
	require.Error(t, err)
	assert.Contains(t, output, "EJBCA refuses: ERROR refused: config cmp updatealias --alias cmpRA "+
		"--key authenticationparameters --value TestCA;***")
	assert.Contains(t, output, "setting authenticationparameters of the CMP alias cmpRA")
}

// Whatever a run did not come to is done by the next one, and until then there is no root that says it was.
func TestEJBCAConfigure_afterAFailure_isFinishedByTheNextRun(t *testing.T) {
	for _, row := range []struct {
		failing, done string
		missing       []string
	}{
		{"ca init", "", []string{makesCA, makesAlias, firstUpdate, lastUpdate, addsMember}},
		{"importprofiles", makesCA, []string{"ca importprofiles", makesAlias, firstUpdate, lastUpdate, addsMember}},
		{"addalias", makesCA, []string{makesAlias, firstUpdate, lastUpdate, addsMember}},
		{"responseprotection", makesAlias, []string{firstUpdate, lastUpdate, addsMember}},
		{"getcacert", makesCA, nil},
	} {
		t.Run(row.failing, func(t *testing.T) {
			i := newInstance(t)
			_, output, err := i.configure(row.failing)
			require.Error(t, err, output)
			assert.NoFileExists(t, i.root())
			calls, _ := i.succeed("")
			for _, want := range row.missing {
				assert.Contains(t, calls, want)
			}
			if row.done != "" {
				assert.NotContains(t, calls, row.done)
			}
			i.assertRoot()
		})
	}
}

// Certificates can be had without updates, so these hold up nothing; they are tried again.
func TestEJBCAConfigure_updatesThatCannotBeAllowed_areTriedAgain(t *testing.T) {
	i := newInstance(t)
	calls, output := i.succeed("changerule Certificate updates /ca_functionality")
	assert.Contains(t, output, "ejbca-configure: certificates cannot be updated, only enrolled again\n")
	assert.NotContains(t, calls, "addrolemember", "a role without all its rules")
	i.assertRoot()

	calls, output = i.succeed("")
	assert.NotContains(t, output, "cannot be updated")
	assert.Equal(t, 4, strings.Count(calls, "roles changerule"))
	assert.Contains(t, calls, addsMember)
}

// Whoever does without the role is safe from others' updates.
func TestEJBCAConfigure_updatesForNobody_makesNoRole(t *testing.T) {
	i := newInstance(t)
	i.settings = []string{"UPDATES_FOR="}
	calls, _ := i.succeed("")
	assert.NotContains(t, calls, "roles ")
	i.assertRoot()
}

// Another secret, or a script with other settings, is taken up by an instance that was configured before.
func TestEJBCAConfigure_otherSettings_areTakenUp(t *testing.T) {
	i := newInstance(t)
	i.succeed("")
	i.write("iak", "the-secret-2")
	calls, _ := i.succeed("")
	assert.NotContains(t, calls, "ca init")
	assert.Equal(t, "TestCA;the-secret-2\n", i.read("value.authenticationparameters"))
	assert.NotContains(t, calls, "addrolemember", "the role has the member")
}

// The volumes are two, and one of them may be thrown away.
func TestEJBCAConfigure_rootOfACAThatIsNoMore_isNotTakenForDone(t *testing.T) {
	i := newInstance(t)
	i.write("root.pem", "another")
	_, output, err := i.configure("addalias")
	require.Error(t, err, output)
	assert.NoFileExists(t, i.root())
	calls, _ := i.succeed("")
	assert.Contains(t, calls, makesAlias)
	i.assertRoot()
}

// EJBCA reads profiles with Java's own format for beans. In its map a field of kind k, the nth, has its value under
// 100n+k, and 1,000,000, 2,000,000 and 3,000,000 more for used, required and modifiable.
func TestEJBCAConfigure_profile_isWhatJavaReads(t *testing.T) {
	i := newInstance(t)
	i.succeed("")
	found := fixture.Must(filepath.Glob(filepath.Join(i.dir, "profiles", "entityprofile_certfetcher-*.xml")))
	require.Len(t, found, 1)
	command := fixture.Java(t, "", "testdata/ReadProfile.java", found[0])
	out, err := command.CombinedOutput()
	require.NoError(t, err, "%s", out)
	golden.File(t, "profile.golden", string(out))
}
