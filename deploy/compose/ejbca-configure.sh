#!/bin/bash
# Makes a CA and a CMP alias in the EJBCA of this container, and writes the CA's certificate to ROOT_FILE when
# all is done. What exists already, after a restart, is left as it is; what an earlier run did not finish is done.
#
#   CA_NAME, CA_DN    the CA, self-signed
#   CMP_ALIAS         last part of the URL: http://HOST:8080/ejbca/publicweb/cmp/CMP_ALIAS
#   CMP_SECRET_FILE   holds the secret that certservice has as authentication.iak
#   UPDATES_FOR       organization (O) of the certificates that may be updated with themselves (kur)
#   ROOT_FILE         where the CA's certificate goes, which certservice has as trustAnchors
#
# EJBCA's command line takes the secret as an argument: it shows in this container's process list.
set -euo pipefail
PATH=$PATH:/opt/keyfactor/bin

until curl --silent --fail --output /dev/null http://localhost:8080/ejbca/publicweb/healthcheck/ejbcahealth; do
	sleep 5
done
until [ -s "$CMP_SECRET_FILE" ]; do
	sleep 1
done

# lists says whether a line of the input ends with the word. It reads on to the end: whoever writes to a pipe that
# nobody reads any more fails.
lists() {
	grep -e "\(^\|[[:space:]]\)$1\$" >/dev/null
}

# Answers are signed by the CA ("signature") rather than protected with the secret ("pbe"), so that
# certservice checks them against trustAnchors. Requests for new certificates come under the secret, updates
# under the old certificate. SERVER is the fixed profile that puts TLS server authentication into certificates;
# end entity profile 1 is EMPTY, which allows every subject.
configure_alias() {
	ejbca.sh config cmp listalias | lists "$CMP_ALIAS" || ejbca.sh config cmp addalias --alias "$CMP_ALIAS"
	local key value
	while read -r key value; do
		ejbca.sh config cmp updatealias --alias "$CMP_ALIAS" --key "$key" --value "$value" >/dev/null </dev/null
	done <<-END
		operationmode ra
		authenticationmodule HMAC;EndEntityCertificate
		authenticationparameters $(cat "$CMP_SECRET_FILE");$CA_NAME
		responseprotection signature
		allowautomatickeyupdate true
		defaultca $CA_DN
		ra.caname $CA_NAME
		ra.namegenerationscheme DN
		ra.namegenerationparameters CN
		ra.endentityprofileid 1
		ra.certificateprofile SERVER
	END
}

# EJBCA lets only holders of a role update certificates in RA mode. Without it updates are refused, and the
# sidecar enrols anew. The member comes last, so that a role that has it is complete.
role='Certificate updates'
updates_allowed() {
	ejbca.sh roles listadmins --role "$role" | grep -F "\"$UPDATES_FOR\"" >/dev/null
}

# Joined with &&, since its caller goes on when it fails, which turns "set -e" off in here.
allow_updates() {
	ejbca.sh roles addrole "$role" || echo "ejbca-configure: perhaps the role is there already" >&2
	ejbca.sh roles changerule "$role" "/ca/$CA_NAME/" ACCEPT &&
		ejbca.sh roles changerule "$role" /ca_functionality/create_certificate/ ACCEPT &&
		ejbca.sh roles changerule "$role" /endentityprofilesrules/EMPTY/ ACCEPT &&
		ejbca.sh roles changerule "$role" /ra_functionality/edit_end_entity/ ACCEPT &&
		ejbca.sh roles addrolemember --role "$role" --caname "$CA_NAME" \
			--with CertificateAuthenticationToken:WITH_ORGANIZATION --value "$UPDATES_FOR"
}

if ! ejbca.sh ca listcas | lists "CA Name: $CA_NAME"; then
	rm -f "$ROOT_FILE" # of a CA that is no more
	ejbca.sh ca init --caname "$CA_NAME" --dn "$CA_DN" --tokenType soft --tokenPass "$(head -c 24 /dev/urandom | base64)" \
		--keytype RSA --keyspec 3072 -v 3652 --policy null -s SHA256WithRSA -type x509
fi
[ -s "$ROOT_FILE" ] || configure_alias
updates_allowed || allow_updates || echo 'ejbca-configure: certificates cannot be updated, only enrolled anew' >&2

ejbca.sh ca getcacert --caname "$CA_NAME" -f /dev/stdout |
	sed -n '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/p' >"$ROOT_FILE.new"
grep -q 'END CERTIFICATE' "$ROOT_FILE.new"
mv "$ROOT_FILE.new" "$ROOT_FILE"
