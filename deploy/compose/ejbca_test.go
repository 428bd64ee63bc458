package compose

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// fakeEJBCA writes down what it is asked, and remembers what was made. Like EJBCA's own command line it makes nothing
// twice, repeats the values that it sets, takes the names of CAs for a CA and not their subjects, keeps a profile that
// it has, and gives each profile that it exports a file named after it and its number.
const fakeEJBCA = `#!/bin/bash
cd "$STATE" || exit 1
echo "$@" >>calls
case "$*" in *"$FAIL"*) [ -z "$FAIL" ] || { echo "ERROR refused: $*"; exit 1; } ;; esac
once() { [ ! -e "$1" ] && echo "$2" >"$1"; }
log() { echo "2026-01-02 03:04:05,678 INFO  [Command] (main) $1"; }
case "$1 $2 $3" in
"ca listcas"*) log "CA Name: ManagementCA"; [ ! -e ca ] || log "CA Name: $(cat ca)"; log " Id: 1" ;;
"ca init"*) once ca "$4" && echo "${10}" >token ;;
"ca getcacert"*) printf 'Subject: CN=Test CA\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n' ;;
"ca exportprofiles"*) mkdir -p profiles; cp profiles/* "$4" 2>/dev/null; log "Exporting" ;;
"ca importprofiles"*)
	mkdir -p profiles
	for file in "$4"/entityprofile_*-*.xml; do
		name=${file##*/}
		if ls profiles/"${name%-*}"-*.xml >/dev/null 2>&1; then log "already exist in database."
		elif ls profiles/*-"${name##*-}" >/dev/null 2>&1; then cp "$file" "profiles/${name%-*}-77.xml"
		else cp "$file" profiles/; fi
	done ;;
"config cmp listalias") log cmp; [ ! -e alias ] || log "$(cat alias)" ;;
"config cmp addalias") once alias "$5" ;;
"config cmp updatealias")
	log "Configuration was: $5.$7="
	if [ "$7" = defaultca ] && [ "$9" != "$(cat ca)" ]; then
		echo "ERROR [UpdateCommand] There is no CA $9 for $SECRET"
		exit 1
	fi
	echo "$9" >"value.$7"
	log "Configuration updated: $5.$7=$9" ;;
"roles listadmins"*) [ -e role ] && cat member 2>/dev/null ;;
"roles addrole "*) once role "$3" ;;
"roles changerule"*) [ -e role ] && echo "$4" >>rules ;;
"roles addrolemember"*) log "'TestCA' WITH_ORGANIZATION TYPE_EQUALCASE \"Example\" \"\"" >member ;;
*) echo "unknown command $*"; exit 1 ;;
esac
`

// fakeHealth answers as EJBCA's health check does: 404 before it is deployed, 500 with a text for a CA whose key is
// offline, which after a restart is every CA whose token has another password than EJBCA's own ("null").
const fakeHealth = `#!/bin/bash
while [ $# -gt 0 ]; do case "$1" in --output) out=$2; shift ;; esac; shift; done
cd "$STATE" || exit 1
if [ -e starting ]; then rm starting; printf 404
elif [ -e settling ]; then rm settling; echo "CA Token is being activated" >"$out"; printf 500
elif [ -e restarted ] && [ -e token ] && [ "$(cat token)" != null ]; then
	echo "CA Token is not active" >"$out"; printf 500
else echo ALLOK >"$out"; printf 200; fi
`

const secretOfTest = "the-secret"

// instance is an EJBCA with its volume, and the volume with the root.
type instance struct {
	t        *testing.T
	dir      string
	programs string
	settings []string
}

func newInstance(t *testing.T) *instance {
	t.Helper()
	i := &instance{t: t, dir: t.TempDir(), programs: t.TempDir()}
	for name, content := range map[string]string{"curl": fakeHealth, "ejbca.sh": fakeEJBCA, "iak": secretOfTest} {
		require.NoError(t, os.WriteFile(filepath.Join(i.programs, name), []byte(content), 0o755))
	}
	return i
}

// configure runs ejbca-configure.sh, with commands that have the text failing; none when empty. It returns what
// EJBCA was asked.
func (i *instance) configure(failing string) (calls, output string, err error) {
	i.t.Helper()
	command := exec.Command(fixture.RequirePrograms(i.t, "bash")[0], "ejbca-configure.sh")
	command.Env = append([]string{
		"PATH=" + i.programs + ":" + os.Getenv("PATH"), "STATE=" + i.dir, "FAIL=" + failing, "SECRET=" + secretOfTest,
		"CA_NAME=TestCA", "CA_DN=CN=Test CA,O=Example", "CMP_ALIAS=cmpRA",
		"CMP_SECRET_FILE=" + filepath.Join(i.programs, "iak"), "UPDATES_FOR=Example",
		"ROOT_FILE=" + i.root(), "WAIT_SECONDS=20", "SETTLE_SECONDS=0", "INTERVAL=0",
	}, i.settings...)
	require.NoError(i.t, os.WriteFile(filepath.Join(i.dir, "calls"), nil, 0o600))
	out, err := command.CombinedOutput()
	asked, readErr := os.ReadFile(filepath.Join(i.dir, "calls"))
	require.NoError(i.t, readErr)
	assert.NotContains(i.t, string(out), secretOfTest)
	return string(asked), string(out), err
}

// restart is what happens to the CAs when EJBCA is restarted.
func (i *instance) restart() {
	i.t.Helper()
	for _, name := range []string{"restarted", "starting", "settling"} {
		require.NoError(i.t, os.WriteFile(filepath.Join(i.dir, name), nil, 0o600))
	}
}

func (i *instance) root() string { return filepath.Join(i.dir, "root.pem") }

func (i *instance) assertRoot() {
	i.t.Helper()
	content, err := os.ReadFile(i.root())
	require.NoError(i.t, err)
	assert.Equal(i.t, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", string(content))
}

func (i *instance) lines(name string) []string {
	i.t.Helper()
	content, err := os.ReadFile(filepath.Join(i.dir, name))
	require.NoError(i.t, err)
	return strings.Split(strings.TrimSpace(string(content)), "\n")
}

const (
	makesCA     = "ca init --caname TestCA --dn CN=Test CA,O=Example --tokenType soft --tokenPass null "
	makesAlias  = "config cmp addalias --alias cmpRA\n"
	firstUpdate = "config cmp updatealias --alias cmpRA --key operationmode --value ra\n"
	lastUpdate  = "config cmp updatealias --alias cmpRA --key ra.certificateprofile --value SERVER\n"
	firstRule   = "roles changerule Certificate updates /ca/TestCA/ ACCEPT\n"
	addsMember  = "roles addrolemember --role Certificate updates --caname TestCA --with " +
		"CertificateAuthenticationToken:WITH_ORGANIZATION --value Example\n"
)

func TestEJBCAConfigure_onANewInstance_makesTheCAAndTheAlias(t *testing.T) {
	i := newInstance(t)
	calls, output, err := i.configure("")
	require.NoError(t, err, output)
	for _, want := range []string{makesCA, makesAlias, firstUpdate, lastUpdate, firstRule,
		addsMember, "ca importprofiles -d "} {
		assert.Contains(t, calls, want)
	}
	for key, want := range map[string]string{
		"authenticationmodule":     "EndEntityCertificate;HMAC",
		"authenticationparameters": "TestCA;the-secret",
		"responseprotection":       "signature",
		"defaultca":                "TestCA",
		"ra.endentityprofileid":    "1402607812",
	} {
		assert.Equal(t, []string{want}, i.lines("value."+key), key)
	}
	assert.Equal(t, []string{"/ca/TestCA/", "/ca_functionality/create_certificate/",
		"/endentityprofilesrules/certfetcher/",
		"/ra_functionality/edit_end_entity/"}, i.lines("rules"))
	i.assertRoot()
}

// Another profile may have the number already; EJBCA then gives ours another one.
func TestEJBCAConfigure_profileNumberThatIsTaken_usesTheOneThatEJBCAGave(t *testing.T) {
	i := newInstance(t)
	require.NoError(t, os.Mkdir(filepath.Join(i.dir, "profiles"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(i.dir, "profiles", "entityprofile_other-1402607812.xml"),
		[]byte("x"), 0o600))
	_, output, err := i.configure("")
	require.NoError(t, err, output)
	assert.Equal(t, []string{"77"}, i.lines("value.ra.endentityprofileid"))
}

// The CA is online again, and what is complete is not done a second time.
func TestEJBCAConfigure_afterARestart_onlyWritesTheRoot(t *testing.T) {
	i := newInstance(t)
	_, output, err := i.configure("")
	require.NoError(t, err, output)
	i.restart()
	i.settings = []string{"SETTLE_SECONDS=20"}
	calls, output, err := i.configure("")
	require.NoError(t, err, output)
	assert.NotContains(t, output, "not healthy", "for a moment it was")
	assert.Equal(t, "ca listcas\nca getcacert --caname TestCA -f /dev/stdout\n", calls)
	i.assertRoot()
}

// As with a CA that an earlier script made: it can never sign again, so the script says so and ends.
func TestEJBCAConfigure_caThatIsOffline_endsWithWhatEJBCASays(t *testing.T) {
	i := newInstance(t)
	_, output, err := i.configure("")
	require.NoError(t, err, output)
	require.NoError(t, os.WriteFile(filepath.Join(i.dir, "token"), []byte("random"), 0o600))
	i.restart()
	before := time.Now()
	_, output, err = i.configure("")
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
}

// Whoever does without the role is safe from others' updates.
func TestEJBCAConfigure_updatesForNobody_makesNoRole(t *testing.T) {
	i := newInstance(t)
	i.settings = []string{"UPDATES_FOR="}
	calls, output, err := i.configure("")
	require.NoError(t, err, output)
	assert.NotContains(t, calls, "roles ")
	i.assertRoot()
}

// Another secret, or a script with other settings, is taken up by an instance that was configured before.
func TestEJBCAConfigure_otherSettings_areTakenUp(t *testing.T) {
	i := newInstance(t)
	_, output, err := i.configure("")
	require.NoError(t, err, output)
	require.NoError(t, os.WriteFile(filepath.Join(i.programs, "iak"), []byte("the-secret-2"), 0o600))
	calls, output, err := i.configure("")
	require.NoError(t, err, output)
	assert.NotContains(t, calls, "ca init")
	assert.Equal(t, []string{"TestCA;the-secret-2"}, i.lines("value.authenticationparameters"))
	assert.NotContains(t, calls, "addrolemember", "the role has the member")
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

// EJBCA reads profiles with Java's own format for beans. In its map a field of kind k, the nth, has its value under
// 100n+k, and 1,000,000, 2,000,000 and 3,000,000 more for used, required and modifiable.
func TestEJBCAConfigure_profile_isWhatJavaReads(t *testing.T) {
	i := newInstance(t)
	_, output, err := i.configure("")
	require.NoError(t, err, output)
	found, err := filepath.Glob(filepath.Join(i.dir, "profiles", "entityprofile_certfetcher-*.xml"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	command := fixture.Java(t, "", "testdata/ReadProfile.java", found[0])
	var errors bytes.Buffer
	command.Stderr = &errors
	out, err := command.Output()
	require.NoError(t, err, errors.String())
	assert.Equal(t, strings.TrimLeft(`
COMMONNAME 1 required 1
ORGANIZATIONALUNIT 4 required 0
ORGANIZATION 1 required 0
LOCALITY 1 required 0
STATE 1 required 0
COUNTRY 1 required 0
RFC822NAME 10 required 0
DNSNAME 50 required 0
IPADDRESS 20 required 0
URI 10 required 0
certificate profiles 9;1, default 9
subject order [50000, 110000, 110001, 110002, 110003, 120000, 130000, 140000, 160000]
alternative names in order 90
`, "\n"), string(out))
	assert.Empty(t, errors.String())
}
