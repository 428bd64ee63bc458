import java.io.ByteArrayOutputStream;
import java.io.File;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Key;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.Signature;
import java.security.cert.X509Certificate;
import java.util.Collections;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * Opens key stores and trust stores as a Java application does, and completes a mutual TLS handshake
 * with them, being client and server in one.
 *
 * Usage: java OpenStores.java {KEYSTORE KEYSTORE_PASSWORD_FILE TRUSTSTORE TRUSTSTORE_PASSWORD_FILE}...
 *
 * For each set of four files it prints the type of either store, a line for each entry, and the
 * outcome of the handshake, then an empty line. The exit code is 1 at the first failure. The
 * certificate must be good for "localhost". Java 11 or later runs it without compiling.
 */
public class OpenStores {
    public static void main(String[] args) throws Exception {
        if (args.length == 0 || args.length % 4 != 0) {
            throw new IllegalArgumentException("want sets of four files, have " + args.length + " arguments");
        }
        for (int i = 0; i < args.length; i += 4) {
            char[] keyPassword = password(args[i + 1]);
            KeyStore keys = open("keystore", args[i], keyPassword);
            KeyStore trusted = open("truststore", args[i + 2], password(args[i + 3]));
            handshake(keys, keyPassword, trusted);
            System.out.println();
        }
    }

    static char[] password(String file) throws Exception {
        return new String(Files.readAllBytes(Path.of(file)), StandardCharsets.UTF_8).toCharArray();
    }

    static KeyStore open(String what, String file, char[] password) throws Exception {
        // Tells JKS from PKCS#12 by content.
        KeyStore store = KeyStore.getInstance(new File(file), password);
        System.out.println(what + " " + store.getType());
        for (String alias : Collections.list(store.aliases())) {
            if (store.isKeyEntry(alias)) {
                Key key = store.getKey(alias, password);
                prove((PrivateKey) key, store.getCertificate(alias).getPublicKey());
                System.out.println(alias + " PrivateKeyEntry " + key.getAlgorithm()
                        + " chain " + store.getCertificateChain(alias).length);
            } else if (store.isCertificateEntry(alias)) {
                X509Certificate cert = (X509Certificate) store.getCertificate(alias);
                System.out.println(alias + " trustedCertEntry " + cert.getSubjectX500Principal());
            } else {
                throw new IllegalStateException("nothing stands under the listed alias " + alias);
            }
        }
        return store;
    }

    /** Signs with the private key and verifies with the certificate's. */
    static void prove(PrivateKey key, PublicKey pub) throws Exception {
        String algorithm = key.getAlgorithm().equals("RSA") ? "SHA256withRSA"
                : key.getAlgorithm().equals("EC") ? "SHA256withECDSA" : "EdDSA";
        Signature signature = Signature.getInstance(algorithm);
        signature.initSign(key);
        signature.update(new byte[] {1, 2, 3});
        byte[] signed = signature.sign();
        signature.initVerify(pub);
        signature.update(new byte[] {1, 2, 3});
        if (!signature.verify(signed)) {
            throw new IllegalStateException("the private key does not belong to its certificate");
        }
    }

    static void handshake(KeyStore keys, char[] password, KeyStore trusted) throws Exception {
        KeyManagerFactory keyManagers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keyManagers.init(keys, password);
        TrustManagerFactory trustManagers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trustManagers.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keyManagers.getKeyManagers(), trustManagers.getTrustManagers(), null);

        ExecutorService executor = Executors.newSingleThreadExecutor();
        try (SSLServerSocket listener = (SSLServerSocket) context.getServerSocketFactory()
                .createServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            listener.setNeedClientAuth(true);
            listener.setSoTimeout(10_000);
            Future<String> client = executor.submit(new Callable<String>() {
                public String call() throws Exception {
                    try (SSLSocket socket = (SSLSocket) context.getSocketFactory()
                            .createSocket("localhost", listener.getLocalPort())) {
                        SSLParameters parameters = socket.getSSLParameters();
                        parameters.setEndpointIdentificationAlgorithm("HTTPS");
                        socket.setSSLParameters(parameters);
                        socket.setSoTimeout(10_000);
                        // In TLS 1.3 a client learns only by reading that its certificate was taken.
                        ByteArrayOutputStream answer = new ByteArrayOutputStream();
                        socket.getOutputStream().write('?');
                        socket.getInputStream().transferTo(answer);
                        return answer.toString("UTF-8");
                    }
                }
            });
            String peer;
            try (SSLSocket socket = (SSLSocket) listener.accept()) {
                socket.setSoTimeout(10_000);
                if (socket.getInputStream().read() != '?') {
                    throw new IllegalStateException("the client closed the connection");
                }
                peer = socket.getSession().getProtocol() + " " + socket.getSession().getPeerPrincipal();
                socket.getOutputStream().write(peer.getBytes(StandardCharsets.UTF_8));
            }
            if (!peer.equals(client.get())) {
                throw new IllegalStateException("the client read something else than the server wrote");
            }
            System.out.println("mutual handshake " + peer);
        } finally {
            executor.shutdown();
        }
    }
}
