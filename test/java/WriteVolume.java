import java.io.FileInputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.SecureRandom;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;

/**
 * Writes a volume as the ONAP CertService client leaves it: regular files that all may read, stores of the JDK,
 * passwords of 24 characters without a line end.
 *
 * Usage: java WriteVolume.java SOURCE DESTINATION P12|JKS|PEM
 * SOURCE has key.pem (PKCS#8), keystore.pem and truststore.pem.
 */
public class WriteVolume {
    private static final String ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_$#";

    public static void main(String[] args) throws Exception {
        Path source = Path.of(args[0]);
        Path destination = Files.createDirectories(Path.of(args[1]));
        Certificate[] chain = read(source.resolve("keystore.pem"));
        Certificate[] trusted = read(source.resolve("truststore.pem"));
        if (args[2].equals("PEM")) {
            for (String name : new String[] {"key.pem", "keystore.pem", "truststore.pem"}) {
                Files.write(destination.resolve(name), Files.readAllBytes(source.resolve(name)));
            }
            return;
        }
        String type = args[2].equals("P12") ? "PKCS12" : "JKS";
        String suffix = args[2].toLowerCase();
        KeyStore keystore = KeyStore.getInstance(type);
        keystore.load(null, null);
        String password = password();
        keystore.setKeyEntry("certificate", key(source.resolve("key.pem")), password.toCharArray(), chain);
        write(keystore, destination, "keystore", suffix, password);
        KeyStore truststore = KeyStore.getInstance(type);
        truststore.load(null, null);
        for (int i = 0; i < trusted.length; i++) {
            truststore.setCertificateEntry("trusted-certificate-" + (i + 1), trusted[i]);
        }
        write(truststore, destination, "truststore", suffix, password());
    }

    private static Certificate[] read(Path path) throws Exception {
        try (InputStream in = new FileInputStream(path.toFile())) {
            return CertificateFactory.getInstance("X.509").generateCertificates(in).toArray(new Certificate[0]);
        }
    }

    private static PrivateKey key(Path path) throws Exception {
        byte[] der = Base64.getMimeDecoder().decode(Files.readString(path).replaceAll("-----.*-----", ""));
        return KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(der));
    }

    private static String password() {
        SecureRandom random = new SecureRandom();
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < 24; i++) {
            text.append(ALPHABET.charAt(random.nextInt(ALPHABET.length())));
        }
        return text.toString();
    }

    private static void write(KeyStore store, Path dir, String name, String suffix, String password) throws Exception {
        try (OutputStream out = Files.newOutputStream(dir.resolve(name + "." + suffix))) {
            store.store(out, password.toCharArray());
        }
        Files.writeString(dir.resolve(name + ".pass"), password);
    }
}
