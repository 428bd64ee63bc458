# Makes the pod of the Kubernetes example one that podman runs on this machine: with an application of ours on a port of
# the host; with a directory in place of the secret, because podman 4.3 does not decode the secrets that it mounts; with
# images that are never pulled. Podman removes init containers that have ended unless told to keep them, and restarts
# them with the pod's other containers, which Kubernetes does not.
s|^  name: app$|&\n  annotations: {io.podman.annotations.init.container.type: always}|
s|^spec:$|&\n  restartPolicy: Never|
s|^      image: certfetcher:latest$|&\n      imagePullPolicy: Never|
s|^      image: your-application$|      image: certfetcher-compose:latest\n      imagePullPolicy: Never\n      args: [-name=app.example.org]\n      ports: [{containerPort: 8443, hostPort: PORT, hostIP: 127.0.0.1}]|
s|securityContext: {allowPrivilegeEscalation: false, capabilities|securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities|
s|secret: {secretName: certfetcher-mtls, defaultMode: 0440}|hostPath: {path: CLIENT}|
