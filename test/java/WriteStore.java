import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.security.KeyStore;
import java.security.Provider;
import java.util.Collections;

/**
 * Writes a key store again with Bouncy Castle, which writes PKCS#12 in BER, as EJBCA does.
 *
 * Usage: java -cp BCPROV WriteStore.java SOURCE PASSWORD DESTINATION
 */
public class WriteStore {
    public static void main(String[] args) throws Exception {
        char[] password = args[1].toCharArray();
        KeyStore source = KeyStore.getInstance("PKCS12");
        try (InputStream in = new FileInputStream(args[0])) {
            source.load(in, password);
        }
        Provider provider = (Provider) Class.forName("org.bouncycastle.jce.provider.BouncyCastleProvider")
            .getDeclaredConstructor().newInstance();
        KeyStore destination = KeyStore.getInstance("PKCS12", provider);
        destination.load(null, null);
        for (String alias : Collections.list(source.aliases())) {
            if (source.isKeyEntry(alias)) {
                destination.setKeyEntry(alias, source.getKey(alias, password), password,
                        source.getCertificateChain(alias));
            } else {
                destination.setCertificateEntry(alias, source.getCertificate(alias));
            }
        }
        try (OutputStream out = new FileOutputStream(args[2])) {
            destination.store(out, password);
        }
    }
}
