import java.io.IOException;
import java.net.InetAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.startup.Catalina;
import org.apache.catalina.startup.Tomcat;
import org.apache.coyote.http11.AbstractHttp11Protocol;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.common.security.ssl.DefaultSslEngineFactory;
import org.apache.tomcat.util.net.SSLHostConfig;
import org.apache.tomcat.util.net.SSLHostConfigCertificate;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.web.servlet.context.ServletWebServerApplicationContext;

/**
 * Serves TLS on loopback with the files of a volume as Tomcat, Kafka and Spring Boot read them.
 *
 * Usage: java -cp JARS Applications.java VOLUME APPLICATION_YAML SERVER_XML
 *
 * It prints "serving NAME PORT" for each, but for that of SERVER_XML. For each byte of its standard input the Tomcat
 * that has no file reloads; the JVM ends with that input.
 */
public class Applications {
    private static final List<Connector> connectors = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        Path volume = Path.of(args[0]);
        catalina(args[2]); // first: those that are embedded set another base directory
        tomcat("tomcat-pem", volume, certificate -> {
            certificate.setCertificateFile(volume.resolve("keystore.pem").toString());
            certificate.setCertificateKeyFile(volume.resolve("key.pem").toString());
        });
        String password = Files.readString(volume.resolve("keystore.pass"));
        kafka("kafka-p12", Map.of(
                "ssl.keystore.type", "PKCS12",
                "ssl.keystore.location", volume.resolve("keystore.p12").toString(),
                "ssl.keystore.password", new Password(password),
                "ssl.key.password", new Password(password),
                "ssl.truststore.type", "PKCS12",
                "ssl.truststore.location", volume.resolve("truststore.p12").toString(),
                "ssl.truststore.password", new Password(Files.readString(volume.resolve("truststore.pass")))));
        kafka("kafka-pem", Map.of(
                "ssl.keystore.type", "PEM",
                "ssl.keystore.location", volume.resolve("keystore-combined.pem").toString(),
                "ssl.truststore.type", "PEM",
                "ssl.truststore.location", volume.resolve("truststore.pem").toString()));
        spring(args[1]);
        while (System.in.read() >= 0) {
            for (Connector connector : connectors) {
                ((AbstractHttp11Protocol<?>) connector.getProtocolHandler()).reloadSslHostConfigs();
            }
        }
        System.exit(0);
    }

    interface Configure {
        void on(SSLHostConfigCertificate certificate);
    }

    static void tomcat(String name, Path volume, Configure configure) throws Exception {
        SSLHostConfig host = new SSLHostConfig();
        SSLHostConfigCertificate certificate =
                new SSLHostConfigCertificate(host, SSLHostConfigCertificate.Type.UNDEFINED);
        configure.on(certificate);
        host.addCertificate(certificate);
        Connector connector = new Connector("org.apache.coyote.http11.Http11NioProtocol");
        connector.setPort(0);
        connector.setProperty("address", "127.0.0.1");
        connector.setProperty("SSLEnabled", "true");
        connector.setSecure(true);
        connector.setScheme("https");
        connector.addSslHostConfig(host);
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(Files.createTempDirectory(volume.resolveSibling(""), name).toString());
        tomcat.setConnector(connector);
        tomcat.start();
        connectors.add(connector);
        System.out.println("serving " + name + " " + connector.getLocalPort());
    }

    /** Tomcat as its own scripts start it, with a server.xml. */
    static void catalina(String configuration) throws Exception {
        Path base = Files.createTempDirectory(Path.of(configuration).getParent(), "catalina");
        System.setProperty("catalina.base", base.toString());
        System.setProperty("catalina.home", base.toString());
        Catalina catalina = new Catalina();
        catalina.setConfigFile(configuration);
        catalina.setUseNaming(false);
        catalina.start();
        System.out.println("started catalina");
    }

    /** The default engine factory is what a broker's listener and a client make their TLS engines with. */
    static void kafka(String name, Map<String, ?> settings) throws Exception {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("ssl.protocol", "TLSv1.3");
        all.put("ssl.enabled.protocols", List.of("TLSv1.2", "TLSv1.3"));
        DefaultSslEngineFactory factory = new DefaultSslEngineFactory();
        factory.configure(all);
        SSLContext context = factory.sslContext();
        SSLServerSocket listener = (SSLServerSocket) context.getServerSocketFactory()
                .createServerSocket(0, 50, InetAddress.getLoopbackAddress());
        Thread thread = new Thread(() -> serve(listener));
        thread.setDaemon(true);
        thread.start();
        System.out.println("serving " + name + " " + listener.getLocalPort());
    }

    static void serve(SSLServerSocket listener) {
        while (true) {
            try (SSLSocket socket = (SSLSocket) listener.accept()) {
                socket.startHandshake();
                socket.getInputStream().read();
            } catch (IOException e) {
                // A client that has seen the certificate may go.
            }
        }
    }

    @EnableAutoConfiguration
    static class SpringBoot {}

    static void spring(String configuration) {
        SpringApplication application = new SpringApplication(SpringBoot.class);
        ServletWebServerApplicationContext context = (ServletWebServerApplicationContext) application.run(
                "--spring.config.location=file:" + configuration, "--server.address=127.0.0.1", "--server.port=0",
                "--spring.main.banner-mode=off", "--spring.ssl.bundle.watch.file.quiet-period=200ms");
        System.out.println("serving spring-boot " + context.getWebServer().getPort());
    }
}
