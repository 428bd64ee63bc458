#!/bin/bash
# Writes down what it is asked, and remembers what was made. Like EJBCA's own command line it makes nothing
# twice, repeats the values that it sets, takes the names of CAs for a CA and not their subjects, keeps a profile that
# it has, and gives each profile that it exports a file named after it and its number.
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
