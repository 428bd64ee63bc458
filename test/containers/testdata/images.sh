#!/bin/sh
# Prints what is in the images: user, program, labels but for those of this machine, and files.
set -eu
for image in certfetcher certfetcher-compose certservice devca; do
	echo "# $image"
	podman image inspect "$image" --format 'user {{.Config.User}} runs {{.Config.Entrypoint}}
{{range $name, $value := .Config.Labels}}{{$name}}={{$value}}
{{end}}' | sed -E '/^$/d; s/(io\.buildah\.version|revision)=.+/\1=…/'
	container=$(podman create "$image")
	podman export "$container" | tar -t | sed 's|/$||' | LC_ALL=C sort
	podman rm "$container" >/dev/null
done
