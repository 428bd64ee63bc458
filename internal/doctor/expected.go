package doctor

// Expected says what each check expects, as docs/checks.md does.
var Expected = map[string]string{
	checkVariables:  "every variable has a usable value",
	checkKeystore:   "KEYSTORE_PATH holds a private key and its certificate, and only certfetcher can read it",
	checkChain:      "each certificate in KEYSTORE_PATH is signed by the next one",
	checkExpiry:     "the client certificate and its chain are valid now, and for some time",
	checkUsage:      "the client certificate may be used for clientAuth",
	checkTruststore: "TRUSTSTORE_PATH holds certificates that can be read and have not expired",
	checkToken:      "TOKEN_PATH holds a service account token that is bound to this pod",
	checkLifetime:   "the token is valid now, and lives for 24 hours at most",

	checkProxy:      "the proxy variables are URLs",
	checkDNS:        "the host name resolves within a second",
	checkTCP:        "every address of the host accepts a connection",
	checkTLS:        "the server speaks TLS 1.2 or later",
	checkServer:     "the server's certificate is valid now, and for some time",
	checkTrust:      "the server's certificate chains to a CA in TRUSTSTORE_PATH",
	checkServerName: "the server's certificate has the host name of the URL",
	checkAccepted:   "the server accepts our certificate or token",
	checkService:    "the CertService is ready",
	checkCAName:     "the CertService knows the CA in CA_NAME, and lets us ask it",
	checkClock:      "the clocks are less than a minute apart",
	checkAnchors:    "CMP_TRUST_ANCHORS can be read",
	checkCMP:        "the CMP server answers a general message, and accepts who asks",

	checkUpdate: "UPDATE_URL leads to a CertService that accepts us",

	checkVolume:     "OUTPUT_PATH is a directory",
	checkFileSystem: "private keys are kept in memory",
	checkSpace:      "the volume has room for a new set of files",
	checkWriting:    "files can be written, synced, renamed and removed on the volume",
	checkLayout:     "the volume can do what OUTPUT_LAYOUT needs, and nothing is in the way",
	checkReader:     "the application's user can read the files",
	checkPublished:  "what is published is valid and is what the configuration asks for",

	checkHealth:  "the address in HEALTH_ADDR is free, or served by certfetcher",
	checkMerge:   "the stores to merge and to copy can be read, and their destinations written",
	checkTrigger: "the trigger file can be watched and removed",

	"notify command": "the command can be run",
	"notify signal":  "there is a process to signal, and certfetcher may signal it",
	"notify url":     "the application takes connections at NOTIFY_URL",
	"notify verify":  "the application can be asked at NOTIFY_VERIFY",
}
