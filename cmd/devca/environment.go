package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"
)

// environment is every variable as text, before any rule is applied. Its tags are what --help prints and
// what faults quote:
//
//	envconfig  the variable's name
//	default    the value when the variable is unset or empty
//	rule       what a value has to look like, worded to follow "want"
//	desc       what it is for
//	secret     "true": the value is never shown, and NAME_FILE may give a path to read it from
type environment struct {
	Addr       string `envconfig:"DEVCA_ADDR" default:"127.0.0.1:8829" rule:"host:port" desc:"where to listen; DEVCA_IAK must be set for an address that other machines can reach"`
	RV         string `envconfig:"DEVCA_RV" default:"mypassword" rule:"1 to 256 bytes" desc:"reference value: the name of the shared secret, which requests carry as senderKID"`
	IAK        string `envconfig:"DEVCA_IAK" secret:"true" rule:"1 to 256 bytes" desc:"initial authentication key: the shared secret; unset, it is the mypassword of the ONAP server's sample configuration"`
	Validity   string `envconfig:"DEVCA_VALIDITY" default:"1h" rule:"a duration such as 1h or 90s, or a number of seconds; 1s to 365 days" desc:"how long certificates are valid"`
	CAFile     string `envconfig:"DEVCA_CA_FILE" rule:"the path of a file in a directory that exists" desc:"where to write the root certificate of this run as PEM"`
	Protection string `envconfig:"DEVCA_RESPONSE_PROTECTION" default:"mac" rule:"mac or signature" desc:"how answers to requests under the shared secret are protected: with it, or by the CA's signature as EJBCA does"`
	Fault      string `envconfig:"DEVCA_FAULT" rule:"any of waiting[:POLLS], rejection[:FAILINFO], unprotected-error, wrong-nonce, wrong-key, expired, slow:DURATION, drop[:BODY], separated by commas" desc:"how to misbehave"`
	LogFormat  string `envconfig:"LOG_FORMAT" default:"json" rule:"json or text" desc:"format of the log on standard error"`
	LogLevel   string `envconfig:"LOG_LEVEL" default:"info" rule:"debug, info, warn or error" desc:"least severe level that is logged"`
}

// variable is a field of environment with its tags.
type variable struct {
	name, def, rule, description string
	secret                       bool
	value                        *string
}

// describe lists the variables in the order of their documentation.
func describe(env *environment) []variable {
	v := reflect.ValueOf(env).Elem()
	variables := make([]variable, v.NumField())
	for i := range variables {
		tag := v.Type().Field(i).Tag
		variables[i] = variable{
			name: tag.Get("envconfig"), def: tag.Get("default"), rule: tag.Get("rule"), description: tag.Get("desc"),
			secret: tag.Get("secret") == "true", value: v.Field(i).Addr().Interface().(*string),
		}
	}
	return variables
}

func writeUsage(w io.Writer) error {
	var text strings.Builder
	text.WriteString(`devca is a certification authority for DEVELOPMENT ONLY. It answers CMP (RFC 9810, 9483, 9811) at /, /pkix/,
/.well-known/cmp and /ejbca/publicweb/cmp/{alias}, keeps everything in memory, and makes its root anew at every start.

Usage: devca [--help | --version]

It is configured by environment variables:

`)
	for _, v := range describe(&environment{}) {
		need := "optional"
		switch {
		case v.def != "":
			need = "default " + v.def
		case v.secret:
			need = "optional, secret"
		}
		fmt.Fprintf(&text, "  %s (%s)\n      %s\n      %s\n", v.name, need, v.description, v.rule)
	}
	text.WriteString(`
An empty variable counts as unset. A secret X may be given as X_FILE, the path of a file that holds it.

Faults, for testing clients; several may be given, separated by commas:
  waiting[:POLLS]                   answers a request with status waiting, and as many pollReqs (1) with pollRep
  rejection[:FAILINFO[+FAILINFO]]   answers requests with status rejection, and such as badCertTemplate
  unprotected-error                 answers requests for certificates with an error message without protection
  wrong-nonce                       answers with a wrong recipNonce
  wrong-key                         issues certificates for another key
  expired                           issues certificates that ended an hour ago
  slow:DURATION                     waits before every answer
  drop[:BODY]                       closes the connection instead of answering, or loses the answers to messages of
                                    one kind, such as certConf, after doing what they ask

Exit codes: 0 stopped by SIGTERM or SIGINT, 1 failed, 2 wrong configuration.
`)
	_, err := io.WriteString(w, text.String())
	return err
}
