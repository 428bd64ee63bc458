import java.io.File;
import java.io.IOException;
import java.net.InetAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardWatchEventKinds;
import java.nio.file.WatchEvent;
import java.nio.file.WatchKey;
import java.nio.file.WatchService;
import java.security.KeyStore;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.X509ExtendedKeyManager;

/**
 * A TLS server that watches its key store and takes a new one up without a restart, as servers with a
 * reloadable key manager do (Spring Boot's SSL bundles, Jetty's KeyStoreScanner).
 *
 * Usage: java ReloadingServer.java KEYSTORE PASSWORD_FILE
 *
 * It prints "serving PORT", then "loaded SERIAL" for each certificate, in lower-case hexadecimal, and "failed"
 * with a reason for a store that cannot be loaded. It ends with its standard input. Java 11 or later.
 */
public class ReloadingServer {
    public static void main(String[] args) throws Exception {
        Path store = Path.of(args[0]).toAbsolutePath();
        WatchService changes = FileSystems.getDefault().newWatchService();
        store.getParent().register(changes, StandardWatchEventKinds.ENTRY_CREATE, StandardWatchEventKinds.ENTRY_MODIFY);
        ReloadableKeyManager keys = new ReloadableKeyManager(store, Path.of(args[1]));
        keys.load();
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(new KeyManager[] {keys}, null, null);
        SSLServerSocket listener = (SSLServerSocket) context.getServerSocketFactory()
                .createServerSocket(0, 50, InetAddress.getLoopbackAddress());
        System.out.println("serving " + listener.getLocalPort());
        start(() -> watch(changes, store.getFileName(), keys));
        start(() -> serve(listener));
        while (System.in.read() >= 0) {
            // until the other side closes it
        }
        System.exit(0);
    }

    interface Work {
        void run() throws Exception;
    }

    static void start(Work work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (Exception e) {
                System.out.println("failed " + e);
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    static void watch(WatchService changes, Path name, ReloadableKeyManager keys) throws Exception {
        while (true) {
            WatchKey key = changes.take();
            boolean mine = false;
            for (WatchEvent<?> event : key.pollEvents()) {
                mine |= name.equals(event.context());
            }
            key.reset();
            if (mine) {
                keys.load();
            }
        }
    }

    static void serve(SSLServerSocket listener) throws IOException {
        while (true) {
            SSLSocket socket = (SSLSocket) listener.accept();
            start(() -> {
                try (socket) {
                    socket.startHandshake();
                    socket.getInputStream().read();
                } catch (IOException e) {
                    // A client that has seen the certificate may go.
                }
            });
        }
    }

    /** Asks whichever key manager was made from the store last. */
    static class ReloadableKeyManager extends X509ExtendedKeyManager {
        private final Path store;
        private final Path passwordFile;
        private volatile X509ExtendedKeyManager current;

        ReloadableKeyManager(Path store, Path passwordFile) {
            this.store = store;
            this.passwordFile = passwordFile;
        }

        void load() throws Exception {
            try {
                char[] password = new String(Files.readAllBytes(passwordFile), StandardCharsets.UTF_8).toCharArray();
                KeyStore keys = KeyStore.getInstance(new File(store.toString()), password);
                KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
                factory.init(keys, password);
                current = (X509ExtendedKeyManager) factory.getKeyManagers()[0];
                X509Certificate leaf = (X509Certificate) keys.getCertificate("certificate");
                System.out.println("loaded " + leaf.getSerialNumber().toString(16));
            } catch (Exception e) {
                System.out.println("failed " + e);
            }
        }

        public String[] getClientAliases(String type, Principal[] issuers) {
            return current.getClientAliases(type, issuers);
        }

        public String chooseClientAlias(String[] types, Principal[] issuers, Socket socket) {
            return current.chooseClientAlias(types, issuers, socket);
        }

        public String[] getServerAliases(String type, Principal[] issuers) {
            return current.getServerAliases(type, issuers);
        }

        public String chooseServerAlias(String type, Principal[] issuers, Socket socket) {
            return current.chooseServerAlias(type, issuers, socket);
        }

        public String chooseEngineServerAlias(String type, Principal[] issuers, SSLEngine engine) {
            return current.chooseEngineServerAlias(type, issuers, engine);
        }

        public X509Certificate[] getCertificateChain(String alias) {
            return current.getCertificateChain(alias);
        }

        public PrivateKey getPrivateKey(String alias) {
            return current.getPrivateKey(alias);
        }
    }
}
