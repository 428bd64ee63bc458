package config

// environment is every variable as text, before any rule is applied. Its tags are the one source of
// the --help output, of the README's table and of the rules quoted in error messages:
//
//	envconfig  the variable's name
//	default    the value when the variable is unset or empty
//	part       which part of the configuration a fault belongs to: client, csr or tls (see Part)
//	group      the heading under which it is documented
//	rule       what a value has to look like, worded to follow "want"
//	desc       what it is for
//	required   "true" when there is no way to run without it
//	secret     "true": the value is never shown, and NAME_FILE may give a path to read it from
type environment struct {
	RequestURL     string `envconfig:"REQUEST_URL" part:"client" group:"Request" default:"https://oom-cert-service:8443/v1/certificate/" rule:"an https:// URL with a host and without user, query or fragment" desc:"CertService URL, to which the CA name is appended"`
	RequestTimeout string `envconfig:"REQUEST_TIMEOUT" part:"client" group:"Request" default:"30000" rule:"milliseconds, or a duration such as 10s; more than 0" desc:"time limit of each try, from connecting to the last byte of the answer"`
	CAName         string `envconfig:"CA_NAME" part:"client" group:"Request" required:"true" rule:"1 to 128 of A-Z a-z 0-9 _ . ~ -" desc:"name of the CA at the CertService"`
	RetryInitial   string `envconfig:"RETRY_INITIAL_INTERVAL" part:"client" group:"Request" default:"1s" rule:"a duration such as 500ms, more than 0 and not more than RETRY_MAX_INTERVAL" desc:"wait before the second try; doubles each time, with jitter"`
	RetryMax       string `envconfig:"RETRY_MAX_INTERVAL" part:"client" group:"Request" default:"30s" rule:"a duration such as 30s, more than 0" desc:"longest wait between two tries"`
	RetryElapsed   string `envconfig:"RETRY_MAX_ELAPSED" part:"client" group:"Request" default:"5m" rule:"a duration such as 5m; 0 for ever" desc:"when to give up trying"`
	ForceEnroll    string `envconfig:"FORCE_ENROLL" part:"client" group:"Request" default:"false" rule:"true or false" desc:"fetch a certificate even when the volume holds a matching, valid one"`

	KeystorePath       string `envconfig:"KEYSTORE_PATH" part:"tls" group:"Mutual TLS" required:"true" rule:"the path of a JKS, PKCS#12 or PEM file with the client certificate and its key" desc:"identity that certfetcher shows to the CertService"`
	KeystorePassword   string `envconfig:"KEYSTORE_PASSWORD" part:"tls" group:"Mutual TLS" secret:"true" rule:"the password of KEYSTORE_PATH; not needed for PEM with a plain key" desc:"password of that file"`
	KeystoreKeyPath    string `envconfig:"KEYSTORE_KEY_PATH" part:"tls" group:"Mutual TLS" rule:"the path of a PEM private key" desc:"private key, when KEYSTORE_PATH is PEM and holds certificates only"`
	TruststorePath     string `envconfig:"TRUSTSTORE_PATH" part:"tls" group:"Mutual TLS" required:"true" rule:"the path of a JKS, PKCS#12 or PEM file with CA certificates" desc:"CAs that the CertService's own certificate must chain to"`
	TruststorePassword string `envconfig:"TRUSTSTORE_PASSWORD" part:"tls" group:"Mutual TLS" secret:"true" rule:"the password of TRUSTSTORE_PATH; not needed for PEM" desc:"password of that file"`

	CommonName       string `envconfig:"COMMON_NAME" part:"csr" group:"Certificate" required:"true" rule:"a name without any of ~#@*$+%!()?/{}<>|_^, without a scheme, an IPv4 address or a port" desc:"subject CN"`
	Organization     string `envconfig:"ORGANIZATION" part:"csr" group:"Certificate" required:"true" rule:"a name without any of ~#@*$+%!()?/{}<>|_^" desc:"subject O"`
	OrganizationUnit string `envconfig:"ORGANIZATION_UNIT" part:"csr" group:"Certificate" rule:"text" desc:"subject OU"`
	Location         string `envconfig:"LOCATION" part:"csr" group:"Certificate" rule:"text" desc:"subject L"`
	State            string `envconfig:"STATE" part:"csr" group:"Certificate" required:"true" rule:"text" desc:"subject ST"`
	Country          string `envconfig:"COUNTRY" part:"csr" group:"Certificate" required:"true" rule:"an ISO 3166-1 alpha-2 code in upper case, such as SE" desc:"subject C"`
	SANs             string `envconfig:"SANS" part:"csr" group:"Certificate" rule:"e-mail addresses, IP addresses, host names (a leading *. allowed) or URIs, separated by single commas" desc:"subject alternative names"`
	KeyAlgorithm     string `envconfig:"KEY_ALGORITHM" part:"client" group:"Certificate" default:"RSA-2048" rule:"one of RSA-2048, RSA-3072, RSA-4096, ECDSA-P256, ECDSA-P384, ECDSA-P521, Ed25519" desc:"kind and size of the new key"`

	OutputPath               string `envconfig:"OUTPUT_PATH" part:"client" group:"Output" required:"true" rule:"an absolute path" desc:"directory for the files; made, with its parents, when missing"`
	OutputType               string `envconfig:"OUTPUT_TYPE" part:"client" group:"Output" default:"P12" rule:"P12, JKS or PEM, or several of them separated by commas" desc:"what to write"`
	OutputLayout             string `envconfig:"OUTPUT_LAYOUT" part:"client" group:"Output" default:"symlink" rule:"symlink or inplace" desc:"how a set is swapped: one rename of ..data, as the kubelet does, or a rename of each file"`
	OutputFileMode           string `envconfig:"OUTPUT_FILE_MODE" part:"client" group:"Output" default:"0640" rule:"an octal file mode that lets the owner read and nobody execute, such as 0640" desc:"mode of keys, keystores and passwords; truststores and certificates are 0644"`
	OutputGroup              string `envconfig:"OUTPUT_GROUP" part:"client" group:"Output" rule:"a group's name or number" desc:"group of the files; without it they inherit the directory's"`
	OutputKeystorePassword   string `envconfig:"OUTPUT_KEYSTORE_PASSWORD" part:"client" group:"Output" secret:"true" rule:"at least 6 characters, all of them printable ASCII" desc:"password of the keystores written; without it read back from the volume, or made once"`
	OutputTruststorePassword string `envconfig:"OUTPUT_TRUSTSTORE_PASSWORD" part:"client" group:"Output" secret:"true" rule:"at least 6 characters, all of them printable ASCII" desc:"the same for the truststores"`
	KeystoreAlias            string `envconfig:"KEYSTORE_ALIAS" part:"client" group:"Output" default:"certificate" rule:"1 to 128 printable characters" desc:"alias of the key entry in JKS and PKCS#12"`
	TruststoreAliasPrefix    string `envconfig:"TRUSTSTORE_ALIAS_PREFIX" part:"client" group:"Output" default:"trusted-certificate-" rule:"1 to 128 printable characters" desc:"alias of the trusted entries, followed by 1, 2, …"`
	P12Profile               string `envconfig:"P12_PROFILE" part:"client" group:"Output" default:"modern" rule:"modern or legacy" desc:"PKCS#12 encryption: AES-256 and SHA-256, or what JDK 8 before 8u301 reads"`

	LogFormat              string `envconfig:"LOG_FORMAT" part:"client" group:"Operation" default:"json" rule:"json or text" desc:"format of the log on standard error"`
	LogLevel               string `envconfig:"LOG_LEVEL" part:"client" group:"Operation" default:"info" rule:"debug, info, warn or error" desc:"least severe level that is logged"`
	TerminationMessagePath string `envconfig:"TERMINATION_MESSAGE_PATH" part:"client" group:"Operation" default:"/dev/termination-log" rule:"the path of a file" desc:"where a failure's reason is written for Kubernetes; the default is used only when it exists"`
}
