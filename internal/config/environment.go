package config

// environment is every variable as text; package environ says what its tags mean. The tag part names a
// Part.
type environment struct {
	RequestURL     string `envconfig:"REQUEST_URL" part:"client" group:"Request" default:"https://oom-cert-service:8443/v1/certificate/" rule:"an https:// URL with a host and without user, query or fragment" desc:"CertService URL, to which the CA name is appended"`
	RequestTimeout string `envconfig:"REQUEST_TIMEOUT" part:"client" group:"Request" default:"30000" rule:"milliseconds, or a duration such as 10s; more than 0" desc:"time limit of each try, from connecting to the last byte of the answer"`
	CAName         string `envconfig:"CA_NAME" part:"client" group:"Request" need:"true" rule:"1 to 128 of A-Z a-z 0-9 _ . ~ -" desc:"name of the CA at the CertService"`
	RetryInitial   string `envconfig:"RETRY_INITIAL_INTERVAL" part:"client" group:"Request" default:"1s" rule:"a duration such as 500ms, more than 0 and not more than RETRY_MAX_INTERVAL" desc:"wait before the second try; doubles each time, with jitter"`
	RetryMax       string `envconfig:"RETRY_MAX_INTERVAL" part:"client" group:"Request" default:"30s" rule:"a duration such as 30s, more than 0" desc:"longest wait between two tries"`
	RetryElapsed   string `envconfig:"RETRY_MAX_ELAPSED" part:"client" group:"Request" default:"5m" rule:"a duration such as 5m; 0 for ever" desc:"when to give up trying"`
	ForceEnroll    string `envconfig:"FORCE_ENROLL" part:"client" group:"Request" default:"false" rule:"true or false" desc:"fetch a certificate even when the volume holds a matching, valid one"`

	KeystorePath       string `envconfig:"KEYSTORE_PATH" part:"tls" group:"Mutual TLS" need:"true" rule:"the path of a JKS, PKCS#12 or PEM file with the client certificate and its key" desc:"identity that certfetcher shows to the CertService"`
	KeystorePassword   string `envconfig:"KEYSTORE_PASSWORD" part:"tls" group:"Mutual TLS" secret:"true" rule:"the password of KEYSTORE_PATH; not needed for PEM with a plain key" desc:"password of that file"`
	KeystoreKeyPath    string `envconfig:"KEYSTORE_KEY_PATH" part:"tls" group:"Mutual TLS" rule:"the path of a PEM private key" desc:"private key, when KEYSTORE_PATH is PEM and holds certificates only"`
	TruststorePath     string `envconfig:"TRUSTSTORE_PATH" part:"tls" group:"Mutual TLS" need:"true" rule:"the path of a JKS, PKCS#12 or PEM file with CA certificates" desc:"CAs that the CertService's own certificate must chain to"`
	TruststorePassword string `envconfig:"TRUSTSTORE_PASSWORD" part:"tls" group:"Mutual TLS" secret:"true" rule:"the password of TRUSTSTORE_PATH; not needed for PEM" desc:"password of that file"`
	AllowNoClientAuth  string `envconfig:"ALLOW_NO_CLIENT_AUTH" part:"client" group:"Mutual TLS" default:"false" rule:"true or false" desc:"send the request also to a server that did not ask for the client certificate; it must be trusted and have the host name all the same"`

	CommonName       string `envconfig:"COMMON_NAME" part:"csr" group:"Certificate" need:"true" rule:"a name without any of ~#@*$+%!()?/{}<>|_^, without a scheme, an IPv4 address or a port" desc:"subject CN"`
	Organization     string `envconfig:"ORGANIZATION" part:"csr" group:"Certificate" need:"true" rule:"a name without any of ~#@*$+%!()?/{}<>|_^" desc:"subject O"`
	OrganizationUnit string `envconfig:"ORGANIZATION_UNIT" part:"csr" group:"Certificate" rule:"text" desc:"subject OU"`
	Location         string `envconfig:"LOCATION" part:"csr" group:"Certificate" rule:"text" desc:"subject L"`
	State            string `envconfig:"STATE" part:"csr" group:"Certificate" need:"true" rule:"text" desc:"subject ST"`
	Country          string `envconfig:"COUNTRY" part:"csr" group:"Certificate" need:"true" rule:"an ISO 3166-1 alpha-2 code in upper case, such as SE" desc:"subject C"`
	SANs             string `envconfig:"SANS" part:"csr" group:"Certificate" rule:"e-mail addresses, IP addresses, host names (a leading *. allowed) or URIs, separated by single commas; each may have its kind before it: DNS:, IP:, email:, URI:" desc:"subject alternative names"`
	KeyAlgorithm     string `envconfig:"KEY_ALGORITHM" part:"client" group:"Certificate" default:"RSA-2048" rule:"one of RSA-2048, RSA-3072, RSA-4096, ECDSA-P256, ECDSA-P384, ECDSA-P521, Ed25519" desc:"kind and size of the new key"`

	OutputPath               string `envconfig:"OUTPUT_PATH" part:"client" group:"Output" need:"true" rule:"an absolute path" desc:"directory for the files; made, with its parents, when missing"`
	OutputType               string `envconfig:"OUTPUT_TYPE" part:"client" group:"Output" default:"P12" rule:"P12, JKS or PEM, or several of them separated by commas" desc:"what to write"`
	OutputLayout             string `envconfig:"OUTPUT_LAYOUT" part:"client" group:"Output" default:"symlink" rule:"symlink or inplace" desc:"how a set is swapped: one rename of ..data, as the kubelet does, or a rename of each file"`
	OutputFileMode           string `envconfig:"OUTPUT_FILE_MODE" part:"client" group:"Output" default:"0640" rule:"an octal file mode that lets the owner read and nobody execute, such as 0640" desc:"mode of keys, keystores and passwords; truststores and certificates are 0644"`
	OutputGroup              string `envconfig:"OUTPUT_GROUP" part:"client" group:"Output" rule:"a group's name or number" desc:"group of the files; without it they inherit the directory's"`
	OutputKeystorePassword   string `envconfig:"OUTPUT_KEYSTORE_PASSWORD" part:"client" group:"Output" secret:"true" rule:"at least 6 characters, all of them printable ASCII" desc:"password of the keystores written; without it read back from the volume, or made once"`
	OutputTruststorePassword string `envconfig:"OUTPUT_TRUSTSTORE_PASSWORD" part:"client" group:"Output" secret:"true" rule:"at least 6 characters, all of them printable ASCII" desc:"the same for the truststores"`
	KeystoreAlias            string `envconfig:"KEYSTORE_ALIAS" part:"client" group:"Output" default:"certificate" rule:"1 to 128 printable characters up to U+FFFF" desc:"alias of the key entry in JKS and PKCS#12"`
	TruststoreAliasPrefix    string `envconfig:"TRUSTSTORE_ALIAS_PREFIX" part:"client" group:"Output" default:"trusted-certificate-" rule:"1 to 128 printable characters up to U+FFFF" desc:"alias of the trusted entries, followed by 1, 2, …"`
	P12Profile               string `envconfig:"P12_PROFILE" part:"client" group:"Output" default:"modern" rule:"modern or legacy" desc:"PKCS#12 encryption: AES-256 and SHA-256, or what JDK 8 before 8u301 reads"`

	Mode          string `envconfig:"MODE" part:"client" group:"Sidecar" default:"init" rule:"init or sidecar" desc:"init: fetch once and exit; sidecar: go on to renew for as long as the pod lives. All below is for the sidecar"`
	RenewAt       string `envconfig:"RENEW_AT" part:"client" group:"Sidecar" default:"2/3" rule:"a share of the certificate's life between 0 and 1, such as 2/3, 0.66 or 66%" desc:"when to renew; up to a tenth of what is then left is taken off, differently for each pod"`
	RenewBefore   string `envconfig:"RENEW_BEFORE" part:"client" group:"Sidecar" rule:"a duration such as 720h, more than 0" desc:"renew this long before the end instead; certificates that do not live long enough for it are renewed at RENEW_AT"`
	RenewTrigger  string `envconfig:"RENEW_TRIGGER_FILE" part:"client" group:"Sidecar" rule:"an absolute path" desc:"a file whose appearance asks for a renewal now; it is removed then"`
	RenewFallback string `envconfig:"RENEW_FALLBACK" part:"client" group:"Sidecar" default:"true" rule:"true or false" desc:"enrol anew when a renewal is refused, when it fails and less than a tenth of the certificate's life is left, or when the certificate has expired; a start with an expired one enrols in any case"`
	UpdateURL     string `envconfig:"UPDATE_URL" part:"client" group:"Sidecar" rule:"an https:// URL with a host and without user, query or fragment" desc:"CertService URL for renewals; without it that of REQUEST_URL with certificate-update in place of certificate"`
	ReuseKey      string `envconfig:"REUSE_KEY" part:"client" group:"Sidecar" default:"false" rule:"true or false" desc:"keep the private key over renewals"`
	TrustOverlap  string `envconfig:"TRUST_OVERLAP" part:"client" group:"Sidecar" rule:"a duration such as 48h; 0 for not at all" desc:"for how long trusted certificates that a renewal no longer brings are kept, counted anew when certfetcher starts again; without it until the certificate that came with them expires"`
	HealthAddress string `envconfig:"HEALTH_ADDR" part:"client" group:"Sidecar" default:":8081" rule:"[host]:port, or off" desc:"where /livez, /readyz, /metrics and POST /renew (from loopback only) are served"`
	PodUID        string `envconfig:"POD_UID" part:"client" group:"Sidecar" rule:"text" desc:"what makes the moment of renewal differ between pods; without it the host name"`

	NotifyExec        string `envconfig:"NOTIFY_EXEC" part:"client" group:"Telling the application" hidden:"true" rule:"a program with its arguments; quotes as in a shell, and nothing else of a shell" desc:"command to run after each publication"`
	NotifySignal      string `envconfig:"NOTIFY_SIGNAL" part:"client" group:"Telling the application" rule:"a signal's name or number, such as HUP; with NOTIFY_PROCESS or NOTIFY_PID_FILE" desc:"signal to send after each publication"`
	NotifyProcess     string `envconfig:"NOTIFY_PROCESS" part:"client" group:"Telling the application" rule:"a program's name without directory; with NOTIFY_SIGNAL" desc:"who gets the signal, in a shared process namespace; with NOTIFY_PID_FILE, what its process must be"`
	NotifyPIDFile     string `envconfig:"NOTIFY_PID_FILE" part:"client" group:"Telling the application" rule:"an absolute path; with NOTIFY_SIGNAL" desc:"file that says who gets the signal, read anew each time"`
	NotifyURL         string `envconfig:"NOTIFY_URL" part:"client" group:"Telling the application" hidden:"true" rule:"an http:// or https:// URL with a host" desc:"URL to POST to after each publication"`
	NotifyAllowRemote string `envconfig:"NOTIFY_URL_ALLOW_REMOTE" part:"client" group:"Telling the application" default:"false" rule:"true or false" desc:"allow NOTIFY_URL to lead elsewhere than to loopback"`
	NotifyVerify      string `envconfig:"NOTIFY_VERIFY" part:"client" group:"Telling the application" rule:"host:port, where TLS begins at once; or postgres://, smtp://, imap:// or ldap:// before it, where it begins after that protocol is asked for it" desc:"where to see, by TLS, whether the application serves the new certificate"`
	NotifyVerifyName  string `envconfig:"NOTIFY_VERIFY_SERVER_NAME" part:"client" group:"Telling the application" rule:"a host name" desc:"server name to ask for there; without it one that the certificate has"`
	NotifyVerifyFor   string `envconfig:"NOTIFY_VERIFY_FOR" part:"client" group:"Telling the application" default:"30s" rule:"a duration such as 30s, more than 0" desc:"for how long to look, before it counts as a failure and is tried again later"`
	NotifyTimeout     string `envconfig:"NOTIFY_TIMEOUT" part:"client" group:"Telling the application" default:"30s" rule:"a duration such as 30s, more than 0" desc:"time limit of the command and of the POST"`

	LogFormat              string `envconfig:"LOG_FORMAT" part:"client" group:"Operation" default:"json" rule:"json or text" desc:"format of the log on standard error"`
	LogLevel               string `envconfig:"LOG_LEVEL" part:"client" group:"Operation" default:"info" rule:"debug, info, warn or error" desc:"least severe level that is logged"`
	TerminationMessagePath string `envconfig:"TERMINATION_MESSAGE_PATH" part:"client" group:"Operation" default:"/dev/termination-log" rule:"the path of a file" desc:"where a failure's reason is written for Kubernetes; the default is used only when it exists"`
}
