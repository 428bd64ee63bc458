#!/bin/bash
# Makes a CA and a CMP alias in the EJBCA of this container, and writes the CA's certificate to ROOT_FILE when
# all is done. What is complete already, after a restart, is left as it is; what an earlier run did not finish, or
# what was configured for other settings, is done again.
#
#   CA_NAME, CA_DN    the CA, self-signed
#   CMP_ALIAS         last part of the URL: http://HOST:8080/ejbca/publicweb/cmp/CMP_ALIAS
#   CMP_SECRET_FILE   holds the secret that certservice has as authentication.iak
#   UPDATES_FOR       organization (O) of the certificates that may be updated with themselves (kur); empty: none
#   ROOT_FILE         where the CA's certificate goes, which certservice has as trustAnchors
#   WAIT_SECONDS      how long to wait for EJBCA and for the secret; default 900
#   SETTLE_SECONDS    how long an EJBCA that answers may be unhealthy; default 60
#
# It needs EJBCA 7.8.1 or later. EJBCA's command line takes the secret as an argument: it shows in this container's
# process list.
set -euo pipefail
PATH=$PATH:/opt/keyfactor/bin

health=http://localhost:8080/ejbca/publicweb/healthcheck/ejbcahealth
profile=certfetcher
profile_id=1402607812
role='Certificate updates'
status='' # of EJBCA's health check
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$work/health"

say() { printf 'ejbca-configure: %s\n' "$*" >&2; }
fail() {
	say "$@"
	exit 1
}

# wait_for repeats a command until it succeeds, but not for ever.
wait_for() {
	local what=$1 deadline=$((SECONDS + ${WAIT_SECONDS:-900}))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || fail "$what is still missing after ${WAIT_SECONDS:-900} seconds"
		sleep "${INTERVAL:-5}"
	done
}

# EJBCA has started when its health check says anything: it answers 500 for as long as the key of any CA is
# offline, and that does not change by waiting. The text says which CA.
started() {
	status=$(curl --silent --output "$work/health" --write-out '%{http_code}' "$health") || return 1
	[ "$status" = 200 ] || [ "$status" = 500 ]
}

# healthy waits until nothing is wrong, for as long as that may take after a start. Otherwise it says what is.
healthy() {
	local deadline=$((SECONDS + ${SETTLE_SECONDS:-60}))
	until started && [ "$status" = 200 ]; do
		if [ "$SECONDS" -ge "$deadline" ]; then
			say "EJBCA is not healthy: $(head -c 500 "$work/health" | tr '\n' ' ')"
			return 1
		fi
		sleep "${INTERVAL:-5}"
	done
}

# quietly runs a command that may repeat the secret; its output is shown, without the secret, only when it fails.
quietly() {
	local answer
	if ! answer=$("$@" 2>&1 </dev/null); then
		say "EJBCA refuses: ${answer//"$secret"/***}"
		return 1
	fi
}

# lists says whether a line of the input ends with the word. It reads on to the end: a writer to a pipe without
# a reader fails.
lists() {
	grep -e "\(^\|[[:space:]]\)$1\$" >/dev/null
}

# The token gets EJBCA's default password ("null"), with which EJBCA activates it by itself after a restart. With
# another one the CA would stay offline until an operator enters it.
make_ca() {
	ejbca.sh ca init --caname "$CA_NAME" --dn "$CA_DN" --tokenType soft --tokenPass null \
		--keytype RSA --keyspec 3072 -v 3652 --policy null -s SHA256WithRSA -type x509
}

# put writes one entry of an end entity profile, which EJBCA keeps as a map: KEY TYPE VALUE.
put() { printf '<void method="put"><int>%d</int><%s>%s</%s></void>\n' "$1" "$2" "$3" "$2"; }

# field writes the Nth field of a kind: its value, whether it is used, required and modifiable.
field() {
	local kind=$1 n=$2 required=$3 value=${4-}
	put $((n * 100 + kind)) string "$value"
	put $((1000000 + n * 100 + kind)) boolean true
	put $((2000000 + n * 100 + kind)) boolean "$required"
	put $((3000000 + n * 100 + kind)) boolean true
}

# numbers writes a list under a name.
numbers() {
	printf '<void method="put"><string>%s</string><object class="java.util.ArrayList">\n' "$1"
	shift
	[ $# = 0 ] || printf '<void method="add"><int>%d</int></void>\n' "$@"
	printf '</object></void>\n'
}

# How many fields of each kind of name may be in a request: common name, organizational unit, organization, locality,
# state, country; e-mail address, DNS name, IP address and URI as alternative names.
subject_fields=([5]=1 [11]=4 [12]=1 [13]=1 [14]=1 [16]=1)
san_fields=([17]=10 [18]=50 [19]=20 [21]=10)

# order lists the fields of the kinds in an array, each as kind and number.
order() {
	local -n of=$1
	local kind n
	for kind in "${!of[@]}"; do
		for ((n = 0; n < of[kind]; n++)); do echo $((kind * 10000 + n)); done
	done
}

# The profile for what certservice asks for. EMPTY, which allows every subject too, cannot be used: for it EJBCA
# lets only super administrators update certificates.
write_profile() {
	local kind n counts=() one='0 1 26 29 30 31 32 37 38'
	for ((kind = 0; kind < 111; kind++)); do counts[kind]=$((${subject_fields[kind]-0} + ${san_fields[kind]-0})); done
	for kind in $one; do counts[kind]=1; done
	echo '<?xml version="1.0" encoding="UTF-8"?>'
	echo '<java version="1.8.0" class="java.beans.XMLDecoder"><object class="java.util.LinkedHashMap">'
	echo '<void method="put"><string>version</string><float>14.0</float></void>'
	numbers NUMBERARRAY "${counts[@]}"
	# The arrays of numbers are split into words on purpose.
	# shellcheck disable=SC2046
	numbers SUBJECTDNFIELDORDER $(order subject_fields)
	# shellcheck disable=SC2046
	numbers SUBJECTALTNAMEFIELDORDER $(order san_fields)
	numbers SUBJECTDIRATTRFIELDORDER
	field 0 0 true     # user name
	field 1 0 true     # password
	field 26 0 false   # e-mail address
	field 29 0 true 9  # default certificate profile: SERVER
	field 30 0 true '9;1' # certificate profiles: SERVER, ENDUSER
	field 31 0 true 1  # default token: made by the user
	field 32 0 true 1
	field 37 0 true 1  # default CA, CAs: the alias says which
	field 38 0 true 1
	for kind in "${!subject_fields[@]}"; do
		for ((n = 0; n < subject_fields[kind]; n++)); do
			if [ "$kind" = 5 ]; then field 5 "$n" true; else field "$kind" "$n" false; fi
		done
	done
	for kind in "${!san_fields[@]}"; do
		for ((n = 0; n < san_fields[kind]; n++)); do field "$kind" "$n" false; done
	done
	echo '</object></java>'
}

# profile_file prints the name under which EJBCA exports the profile, which ends in its number.
profile_file() {
	rm -rf "$work/export"
	mkdir "$work/export"
	ejbca.sh ca exportprofiles -d "$work/export" >&2
	find "$work/export" -name "entityprofile_$profile-*.xml" -exec basename {} .xml \;
}

# make_profile imports the profile unless it is there, and sets profile_id to the number that EJBCA gave it.
make_profile() {
	local file
	file=$(profile_file)
	if [ -z "$file" ]; then
		mkdir "$work/import"
		write_profile >"$work/import/entityprofile_$profile-$profile_id.xml"
		ejbca.sh ca importprofiles -d "$work/import"
		file=$(profile_file)
	fi
	[ -n "$file" ] || fail "EJBCA did not import the end entity profile $profile"
	profile_id=${file#"entityprofile_$profile-"}
}

# Answers are signed by the CA ("signature") rather than protected with the secret ("pbe"), so that certservice
# checks them against trustAnchors. Requests for new certificates come under the secret, updates under the old
# certificate: EndEntityCertificate comes first, since EJBCA reports what the last module says, and that is to be
# about the secret. SERVER is the fixed profile that puts TLS server authentication into certificates.
configure_alias() {
	ejbca.sh config cmp listalias | lists "$CMP_ALIAS" || ejbca.sh config cmp addalias --alias "$CMP_ALIAS"
	local key value
	while read -r key value; do
		quietly ejbca.sh config cmp updatealias --alias "$CMP_ALIAS" --key "$key" --value "$value" ||
			fail "setting $key of the CMP alias $CMP_ALIAS"
	done <<-END
		operationmode ra
		authenticationmodule EndEntityCertificate;HMAC
		authenticationparameters $CA_NAME;$secret
		responseprotection signature
		allowautomatickeyupdate true
		defaultca $CA_NAME
		ra.caname $CA_NAME
		ra.namegenerationscheme DN
		ra.namegenerationparameters CN
		ra.endentityprofileid $profile_id
		ra.certificateprofile SERVER
	END
}

# EJBCA lets only holders of a role update certificates in RA mode. Without it updates are refused, and the
# sidecar enrols again. The rules of the role are set again in any case: those of an earlier script do not do.
has_member() {
	ejbca.sh roles listadmins --role "$role" | grep -F "\"$UPDATES_FOR\"" >/dev/null
}

# Joined with &&, since its caller goes on when it fails, which turns "set -e" off in here.
allow_updates() {
	ejbca.sh roles addrole "$role" || say "perhaps the role is there already"
	ejbca.sh roles changerule "$role" "/ca/$CA_NAME/" ACCEPT &&
		ejbca.sh roles changerule "$role" /ca_functionality/create_certificate/ ACCEPT &&
		ejbca.sh roles changerule "$role" "/endentityprofilesrules/$profile/" ACCEPT &&
		ejbca.sh roles changerule "$role" /ra_functionality/edit_end_entity/ ACCEPT &&
		{ has_member || ejbca.sh roles addrolemember --role "$role" --caname "$CA_NAME" \
			--with CertificateAuthenticationToken:WITH_ORGANIZATION --value "$UPDATES_FOR"; }
}

wait_for "the file $CMP_SECRET_FILE" test -s "$CMP_SECRET_FILE"
secret=$(cat "$CMP_SECRET_FILE")
wait_for 'an answer of EJBCA' started
healthy || say 'going on, since that may be another CA'

if ! ejbca.sh ca listcas | lists "CA Name: $CA_NAME"; then
	rm -f "$ROOT_FILE" "$ROOT_FILE.settings" # of a CA that is gone
	make_ca
fi
# settings is what the alias was configured with; a hash, because of the secret.
settings=$({
	cat "$0"
	printf '%s\n' "$CA_NAME" "$CA_DN" "$CMP_ALIAS" "$UPDATES_FOR" "$secret"
} | sha256sum)
if [ ! -s "$ROOT_FILE" ] || [ "$(cat "$ROOT_FILE.settings" 2>/dev/null)" != "$settings" ]; then
	rm -f "$ROOT_FILE.settings"
	make_profile
	configure_alias
	if [ -z "$UPDATES_FOR" ]; then
		say 'UPDATES_FOR is empty: certificates cannot be updated, only enrolled again'
		printf '%s\n' "$settings" >"$ROOT_FILE.settings"
	elif allow_updates; then
		printf '%s\n' "$settings" >"$ROOT_FILE.settings"
	else
		say 'certificates cannot be updated, only enrolled again'
	fi
fi

ejbca.sh ca getcacert --caname "$CA_NAME" -f /dev/stdout |
	sed -n '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/p' >"$ROOT_FILE.new"
grep -q 'END CERTIFICATE' "$ROOT_FILE.new" || fail "EJBCA gives no certificate of the CA $CA_NAME"

# A CA whose key is offline signs nothing. So it is with a CA that an earlier script made: its token had a random
# password, which was not kept.
if ! healthy; then
	rm -f "$ROOT_FILE" "$ROOT_FILE.new"
	fail 'if a CA is offline and its password is lost, remove the volumes: docker compose down -v'
fi
mv "$ROOT_FILE.new" "$ROOT_FILE"
