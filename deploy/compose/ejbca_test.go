package compose

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/peer"
)

// fakeEJBCA writes down what it is asked, and remembers what was made. Like EJBCA's own, it makes nothing twice.
const fakeEJBCA = `#!/bin/sh
cd "$STATE" || exit 1
echo "$@" >>calls
case "$*" in *"$FAIL"*) [ -z "$FAIL" ] || exit 1 ;; esac
once() { [ ! -e "$1" ] && echo "$2" >"$1"; }
log() { echo "2026-01-02 03:04:05,678 INFO  [Command] (main) $1"; }
case "$1 $2 $3" in
"ca listcas"*) log "CA Name: ManagementCA"; [ ! -e ca ] || log "CA Name: $(cat ca)"; log " Id: 1" ;;
"ca init"*) once ca "$4" ;;
"ca getcacert"*) printf 'Subject: CN=Test CA\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n' ;;
"config cmp listalias") log cmp; [ ! -e alias ] || log "$(cat alias)" ;;
"config cmp addalias") once alias "$5" ;;
"roles listadmins"*) [ -e role ] && cat member 2>/dev/null ;;
"roles addrole "*) once role "$3" ;;
"roles changerule"*) [ -e role ] ;;
"roles addrolemember"*) log "'TestCA' WITH_ORGANIZATION TYPE_EQUALCASE \"Example\" \"\"" >member ;;
esac
`

// instance is an EJBCA with its volume, and the volume with the root.
type instance struct {
	t        *testing.T
	dir      string
	programs string
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	i := &instance{t, t.TempDir(), t.TempDir()}
	for name, content := range map[string]string{"curl": "#!/bin/sh\n", "ejbca.sh": fakeEJBCA, "iak": "the-secret"} {
		require.NoError(t, os.WriteFile(filepath.Join(i.programs, name), []byte(content), 0o755))
	}
	return i
}

// configure runs ejbca-configure.sh, with commands that have the text failing; none when empty. It returns what
// EJBCA was asked.
func (i *instance) configure(failing string) (calls, output string, err error) {
	i.t.Helper()
	command := exec.Command(peer.Require(i.t, "bash")[0], "ejbca-configure.sh")
	command.Env = []string{"PATH=" + i.programs + ":" + os.Getenv("PATH"), "STATE=" + i.dir, "FAIL=" + failing, "CA_NAME=TestCA", "CA_DN=CN=Test CA,O=Example",
		"CMP_ALIAS=cmpRA", "CMP_SECRET_FILE=" + filepath.Join(i.programs, "iak"), "UPDATES_FOR=Example", "ROOT_FILE=" + i.root()}
	require.NoError(i.t, os.RemoveAll(filepath.Join(i.dir, "calls")))
	out, err := command.CombinedOutput()
	asked, readErr := os.ReadFile(filepath.Join(i.dir, "calls"))
	require.NoError(i.t, readErr)
	assert.NotContains(i.t, string(out), "the-secret")
	return string(asked), string(out), err
}

func (i *instance) root() string { return filepath.Join(i.dir, "root.pem") }

func (i *instance) assertRoot() {
	i.t.Helper()
	content, err := os.ReadFile(i.root())
	require.NoError(i.t, err)
	assert.Equal(i.t, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", string(content))
}

const (
	makesCA     = "ca init --caname TestCA --dn CN=Test CA,O=Example --tokenType soft --tokenPass "
	makesAlias  = "config cmp addalias --alias cmpRA\n"
	firstUpdate = "config cmp updatealias --alias cmpRA --key operationmode --value ra\n"
	lastUpdate  = "config cmp updatealias --alias cmpRA --key ra.certificateprofile --value SERVER\n"
	firstRule   = "roles changerule Certificate updates /ca/TestCA/ ACCEPT\n"
	addsMember  = "roles addrolemember --role Certificate updates --caname TestCA --with CertificateAuthenticationToken:WITH_ORGANIZATION --value Example\n"
)

func TestEJBCAConfigure_onANewInstance_makesTheCAAndTheAlias(t *testing.T) {
	i := newInstance(t)
	calls, output, err := i.configure("")
	require.NoError(t, err, output)
	for _, want := range []string{
		makesCA, makesAlias, firstUpdate, lastUpdate, firstRule, addsMember,
		"config cmp updatealias --alias cmpRA --key authenticationmodule --value HMAC;EndEntityCertificate\n",
		"config cmp updatealias --alias cmpRA --key authenticationparameters --value the-secret;TestCA\n",
		"config cmp updatealias --alias cmpRA --key responseprotection --value signature\n",
		"config cmp updatealias --alias cmpRA --key defaultca --value CN=Test CA,O=Example\n",
	} {
		assert.Contains(t, calls, want)
	}
	i.assertRoot()
}

func TestEJBCAConfigure_afterARestart_onlyWritesTheRoot(t *testing.T) {
	i := newInstance(t)
	_, output, err := i.configure("")
	require.NoError(t, err, output)
	calls, output, err := i.configure("")
	require.NoError(t, err, output)
	assert.Equal(t, "ca listcas\nroles listadmins --role Certificate updates\nca getcacert --caname TestCA -f /dev/stdout\n", calls)
	i.assertRoot()
}

// Whatever a run did not come to is done by the next one, and until then there is no root that says it was.
func TestEJBCAConfigure_afterAFailure_isFinishedByTheNextRun(t *testing.T) {
	for _, row := range []struct {
		failing, done string
		missing       []string
	}{
		{"ca init", "", []string{makesCA, makesAlias, firstUpdate, lastUpdate, addsMember}},
		{"addalias", makesCA, []string{makesAlias, firstUpdate, lastUpdate, addsMember}},
		{"responseprotection", makesAlias, []string{firstUpdate, lastUpdate, addsMember}},
		{"getcacert", makesCA, []string{lastUpdate}},
	} {
		t.Run(row.failing, func(t *testing.T) {
			i := newInstance(t)
			_, output, err := i.configure(row.failing)
			require.Error(t, err, output)
			assert.NoFileExists(t, i.root())
			calls, output, err := i.configure("")
			require.NoError(t, err, output)
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
	calls, output, err := i.configure("changerule Certificate updates /ca_functionality")
	require.NoError(t, err, output)
	assert.Contains(t, output, "ejbca-configure: certificates cannot be updated, only enrolled anew\n")
	assert.NotContains(t, calls, "addrolemember", "a role without all its rules")
	i.assertRoot()

	calls, output, err = i.configure("")
	require.NoError(t, err, output)
	assert.NotContains(t, output, "cannot be updated")
	assert.Equal(t, 4, strings.Count(calls, "roles changerule"))
	assert.Contains(t, calls, addsMember)
	assert.NotContains(t, calls, "updatealias")
}

// The volumes are two, and one of them may be thrown away.
func TestEJBCAConfigure_rootOfACAThatIsNoMore_isNotTakenForDone(t *testing.T) {
	i := newInstance(t)
	require.NoError(t, os.WriteFile(i.root(), []byte("another"), 0o600))
	_, output, err := i.configure("addalias")
	require.Error(t, err, output)
	assert.NoFileExists(t, i.root())
	calls, output, err := i.configure("")
	require.NoError(t, err, output)
	assert.Contains(t, calls, makesAlias)
	i.assertRoot()
}
