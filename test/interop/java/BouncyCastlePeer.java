import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.math.BigInteger;
import java.net.HttpURLConnection;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Proxy;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.SecureRandom;
import java.security.Security;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import java.util.Base64;
import java.util.Date;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.bouncycastle.asn1.ASN1Encodable;
import org.bouncycastle.asn1.ASN1Integer;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.ASN1OctetString;
import org.bouncycastle.asn1.DERNull;
import org.bouncycastle.asn1.cmp.CMPCertificate;
import org.bouncycastle.asn1.cmp.CMPObjectIdentifiers;
import org.bouncycastle.asn1.cmp.CertConfirmContent;
import org.bouncycastle.asn1.cmp.CertOrEncCert;
import org.bouncycastle.asn1.cmp.CertRepMessage;
import org.bouncycastle.asn1.cmp.CertResponse;
import org.bouncycastle.asn1.cmp.CertifiedKeyPair;
import org.bouncycastle.asn1.cmp.ErrorMsgContent;
import org.bouncycastle.asn1.cmp.InfoTypeAndValue;
import org.bouncycastle.asn1.cmp.PBMParameter;
import org.bouncycastle.asn1.cmp.PKIBody;
import org.bouncycastle.asn1.cmp.PKIConfirmContent;
import org.bouncycastle.asn1.cmp.PKIFreeText;
import org.bouncycastle.asn1.cmp.PKIHeader;
import org.bouncycastle.asn1.cmp.PKIStatus;
import org.bouncycastle.asn1.cmp.PKIStatusInfo;
import org.bouncycastle.asn1.cmp.PollReqContent;
import org.bouncycastle.asn1.cmp.RevDetails;
import org.bouncycastle.asn1.cmp.RevRepContent;
import org.bouncycastle.asn1.cmp.RevReqContent;
import org.bouncycastle.asn1.crmf.AttributeTypeAndValue;
import org.bouncycastle.asn1.crmf.CertId;
import org.bouncycastle.asn1.crmf.CertReqMessages;
import org.bouncycastle.asn1.crmf.CertTemplate;
import org.bouncycastle.asn1.crmf.CertTemplateBuilder;
import org.bouncycastle.asn1.iana.IANAObjectIdentifiers;
import org.bouncycastle.asn1.nist.NISTObjectIdentifiers;
import org.bouncycastle.asn1.oiw.OIWObjectIdentifiers;
import org.bouncycastle.asn1.pkcs.CertificationRequest;
import org.bouncycastle.asn1.pkcs.PBMAC1Params;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.asn1.x509.AlgorithmIdentifier;
import org.bouncycastle.asn1.x509.BasicConstraints;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.Extensions;
import org.bouncycastle.asn1.x509.GeneralName;
import org.bouncycastle.asn1.x509.GeneralNames;
import org.bouncycastle.asn1.x509.KeyUsage;
import org.bouncycastle.asn1.x509.SubjectPublicKeyInfo;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.X509v3CertificateBuilder;
import org.bouncycastle.cert.cmp.CertificateConfirmationContent;
import org.bouncycastle.cert.cmp.CertificateConfirmationContentBuilder;
import org.bouncycastle.cert.cmp.CertificateStatus;
import org.bouncycastle.cert.cmp.GeneralPKIMessage;
import org.bouncycastle.cert.cmp.ProtectedPKIMessage;
import org.bouncycastle.cert.cmp.ProtectedPKIMessageBuilder;
import org.bouncycastle.cert.crmf.CertificateRequestMessage;
import org.bouncycastle.cert.crmf.Control;
import org.bouncycastle.cert.crmf.PKMACBuilder;
import org.bouncycastle.cert.crmf.jcajce.JcaCertificateRequestMessageBuilder;
import org.bouncycastle.cert.crmf.jcajce.JcePKMACValuesCalculator;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.DigestCalculatorProvider;
import org.bouncycastle.operator.MacCalculator;
import org.bouncycastle.operator.PBEMacCalculatorProvider;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.operator.jcajce.JcaContentVerifierProviderBuilder;
import org.bouncycastle.operator.jcajce.JcaDigestCalculatorProviderBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;
import org.bouncycastle.pkcs.jcajce.JcePBMac1CalculatorBuilder;
import org.bouncycastle.pkcs.jcajce.JcePBMac1CalculatorProviderBuilder;

/**
 * A CMP peer made of Bouncy Castle, to hold another implementation against, as a program of one file:
 *
 * java -cp ... BouncyCastlePeer.java SECRET
 *
 * It is a CMP server: it prints "listening PORT ROOT", where ROOT is its root certificate in Base64, and ends with
 * its standard input. It answers ir, cr, p10cr, kur and certConf in kind, or always with a signature under the
 * path /signed. Everything that it does not like it answers with an error that says so.
 *
 * And it is a CMP client: for each line "URL REFERENCE ROOT_FILE" that it reads it tries every operation with every
 * protection at a server with the same secret. It prints one line for each: "passed" or "failed", protection,
 * operation and confirmation, separated by tabs, and the reason; and "end" after them.
 */
public class BouncyCastlePeer {
    static final SecureRandom random = new SecureRandom();

    public static void main(String[] args) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        char[] secret = args[0].toCharArray();
        HttpServer server = new Responder(secret).start();
        try (BufferedReader in = new BufferedReader(new InputStreamReader(System.in))) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                String[] of = line.split(" ");
                new Requester(of[0], of[1], secret, new File(of[2])).run();
                System.out.println("end");
            }
        } finally {
            server.stop(0); // or its thread keeps the program running
        }
    }

    static class Refusal extends Exception {
        private static final long serialVersionUID = 1;

        Refusal(String message) {
            super(message);
        }
    }

    static void check(boolean holds, String otherwise) throws Refusal {
        if (!holds) {
            throw new Refusal(otherwise);
        }
    }

    static byte[] nonce() {
        byte[] bytes = new byte[16];
        random.nextBytes(bytes);
        return bytes;
    }

    /** Verifies the MAC and returns a calculator with the same parameters, for the answer. */
    static MacCalculator verifyMAC(ProtectedPKIMessage message, char[] secret) throws Exception {
        AlgorithmIdentifier algorithm = message.getHeader().getProtectionAlg();
        boolean pbm = algorithm.getAlgorithm().equals(CMPObjectIdentifiers.passwordBasedMac);
        PBEMacCalculatorProvider provider = pbm ? new PKMACBuilder(new JcePKMACValuesCalculator().setProvider("BC"))
                : new JcePBMac1CalculatorProviderBuilder().setProvider("BC").build();
        check(message.verify(provider, secret), "the MAC is wrong");
        return pbm ? new PKMACBuilder(new JcePKMACValuesCalculator().setProvider("BC"))
                        .setParameters(PBMParameter.getInstance(algorithm.getParameters())).build(secret)
                : new JcePBMac1CalculatorBuilder(PBMAC1Params.getInstance(algorithm.getParameters()))
                        .setProvider("BC").build(secret);
    }

    static boolean byMAC(ProtectedPKIMessage message) {
        ASN1ObjectIdentifier algorithm = message.getHeader().getProtectionAlg().getAlgorithm();
        return algorithm.equals(CMPObjectIdentifiers.passwordBasedMac)
                || algorithm.equals(PKCSObjectIdentifiers.id_PBMAC1);
    }

    /** Verifies a signature by the first of extraCerts, which is the sender's. */
    static X509CertificateHolder verifySignature(ProtectedPKIMessage message) throws Exception {
        check(message.getCertificates().length > 0, "the signed message has no extraCerts");
        X509CertificateHolder signer = message.getCertificates()[0];
        check(message.verify(new JcaContentVerifierProviderBuilder().setProvider("BC").build(signer)),
                "the signature is wrong");
        check(new GeneralName(signer.getSubject()).equals(message.getHeader().getSender()),
                "the sender is not the signer");
        return signer;
    }

    static boolean issuedBy(X509CertificateHolder certificate, X509CertificateHolder issuer) throws Exception {
        return certificate.getIssuer().equals(issuer.getSubject())
                && certificate.isSignatureValid(new JcaContentVerifierProviderBuilder().setProvider("BC")
                        .build(issuer));
    }

    static boolean asksImplicitConfirm(PKIHeader header) {
        InfoTypeAndValue[] infos = header.getGeneralInfo();
        return infos != null && Arrays.stream(infos)
                .anyMatch(info -> info.getInfoType().equals(CMPObjectIdentifiers.it_implicitConfirm));
    }

    static final InfoTypeAndValue IMPLICIT_CONFIRM = new InfoTypeAndValue(CMPObjectIdentifiers.it_implicitConfirm,
            DERNull.INSTANCE);

    static DigestCalculatorProvider digests() throws Exception {
        return new JcaDigestCalculatorProviderBuilder().setProvider("BC").build();
    }

    static KeyPair newKey(String algorithm) throws Exception {
        switch (algorithm) {
            case "RSA":
                KeyPairGenerator rsa = KeyPairGenerator.getInstance("RSA", "BC");
                rsa.initialize(2048);
                return rsa.generateKeyPair();
            case "EC":
                KeyPairGenerator ec = KeyPairGenerator.getInstance("EC", "BC");
                ec.initialize(256);
                return ec.generateKeyPair();
            default:
                return KeyPairGenerator.getInstance(algorithm, "BC").generateKeyPair();
        }
    }

    static ContentSigner signer(PrivateKey key) throws Exception {
        String algorithm = key.getAlgorithm().equals("RSA") ? "SHA256withRSA"
                : key.getAlgorithm().startsWith("Ed") ? "Ed25519" : "SHA256withECDSA";
        return new JcaContentSignerBuilder(algorithm).setProvider("BC").build(key);
    }

    /** Waits for a confirmation: the certificate, and the nonce that the confirmation must return. */
    record Issued(X509CertificateHolder certificate, byte[] nonce) {}

    static class Responder {
        final char[] secret;
        final KeyPair rootKey = newKey("EC");
        final KeyPair key = newKey("EC");
        final X509CertificateHolder root;
        final X509CertificateHolder issuing;
        final Map<ASN1OctetString, Issued> unconfirmed = new ConcurrentHashMap<>();
        final Map<ASN1OctetString, PKIBody> delayed = new ConcurrentHashMap<>();

        Responder(char[] secret) throws Exception {
            this.secret = secret;
            X500Name rootName = new X500Name("CN=Bouncy Castle Root CA");
            X500Name name = new X500Name("CN=Bouncy Castle CA");
            root = authority(rootName, rootKey.getPublic(), rootName, rootKey.getPrivate());
            issuing = authority(name, key.getPublic(), rootName, rootKey.getPrivate());
        }

        static X509v3CertificateBuilder certificate(X500Name subject, SubjectPublicKeyInfo key, X500Name issuer) {
            long now = System.currentTimeMillis();
            return new X509v3CertificateBuilder(issuer, new BigInteger(120, random),
                    new Date(now - 60_000), new Date(now + 3_600_000), subject, key);
        }

        static X509CertificateHolder authority(X500Name subject, PublicKey key, X500Name issuer, PrivateKey signer)
                throws Exception {
            return certificate(subject, SubjectPublicKeyInfo.getInstance(key.getEncoded()), issuer)
                    .addExtension(Extension.basicConstraints, true, new BasicConstraints(true))
                    .addExtension(Extension.keyUsage, true,
                            new KeyUsage(KeyUsage.keyCertSign | KeyUsage.cRLSign | KeyUsage.digitalSignature))
                    .build(signer(signer));
        }

        HttpServer start() throws Exception {
            HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
            server.createContext("/", this::handle);
            server.start();
            System.out.println("listening " + server.getAddress().getPort() + " "
                    + Base64.getEncoder().encodeToString(root.getEncoded()));
            return server;
        }

        void handle(HttpExchange exchange) throws IOException {
            byte[] answer;
            try {
                answer = answer(exchange.getRequestBody().readAllBytes(), exchange.getRequestURI().getPath());
                exchange.getResponseHeaders().set("Content-Type", "application/pkixcmp");
                exchange.sendResponseHeaders(200, answer.length);
            } catch (Exception e) {
                e.printStackTrace();
                answer = e.toString().getBytes(StandardCharsets.UTF_8);
                exchange.sendResponseHeaders(500, answer.length);
            }
            exchange.getResponseBody().write(answer);
            exchange.close();
        }

        byte[] answer(byte[] der, String path) throws Exception {
            ProtectedPKIMessage request = new ProtectedPKIMessage(new GeneralPKIMessage(der));
            PKIHeader header = request.getHeader();
            byte[] nonce = nonce();
            ProtectedPKIMessageBuilder builder = new ProtectedPKIMessageBuilder(new GeneralName(issuing.getSubject()),
                    header.getSender())
                    .setMessageTime(new Date())
                    .setTransactionID(header.getTransactionID().getOctets())
                    .setSenderNonce(nonce)
                    .setRecipNonce(header.getSenderNonce().getOctets())
                    .addCMPCertificate(issuing).addCMPCertificate(root);
            MacCalculator mac = null;
            try {
                X509CertificateHolder requester = null;
                if (byMAC(request)) {
                    mac = verifyMAC(request, secret);
                } else {
                    requester = verifySignature(request);
                    check(issuedBy(requester, issuing), "the requester's certificate is not by this CA");
                }
                boolean implicit = asksImplicitConfirm(header);
                PKIBody body = request.getBody().getType() == PKIBody.TYPE_POLL_REQ ? late(request)
                        : body(request, requester, implicit, nonce);
                if (path.equals("/delayed") && body.getType() == PKIBody.TYPE_CONFIRM
                        && request.getBody().getType() == PKIBody.TYPE_CERT_CONFIRM) {
                    delayed.put(header.getTransactionID(), body);
                    body = new PKIBody(PKIBody.TYPE_ERROR, new ErrorMsgContent(new PKIStatusInfo(PKIStatus.waiting)));
                }
                builder.setBody(body);
                if (implicit) {
                    builder.addGeneralInfo(IMPLICIT_CONFIRM);
                }
            } catch (Refusal e) {
                builder.setBody(new PKIBody(PKIBody.TYPE_ERROR,
                        new ErrorMsgContent(new PKIStatusInfo(PKIStatus.rejection, new PKIFreeText(e.getMessage())))));
            }
            boolean inKind = mac != null && !path.equals("/signed");
            if (inKind && path.equals("/many-iterations")) {
                mac = new JcePBMac1CalculatorBuilder("HmacSHA256", 256).setProvider("BC").setIterationCount(262_144)
                        .build(secret);
            }
            return (inKind ? builder.build(mac) : builder.build(signer(key.getPrivate()))).toASN1Structure()
                    .getEncoded("DER");
        }

        /** The answer that was put off as a whole (RFC 9483, 4.4). */
        PKIBody late(ProtectedPKIMessage request) throws Refusal {
            PKIBody body = delayed.remove(request.getHeader().getTransactionID());
            check(body != null, "nothing is polled for in this transaction");
            BigInteger[] ids = PollReqContent.getInstance(request.getBody().getContent()).getCertReqIdValues();
            check(ids.length == 1 && ids[0].intValueExact() == -1, "certReqId is not -1");
            return body;
        }

        PKIBody body(ProtectedPKIMessage request, X509CertificateHolder requester, boolean implicit, byte[] nonce)
                throws Exception {
            ASN1OctetString id = request.getHeader().getTransactionID();
            int type = request.getBody().getType();
            ASN1Encodable content = request.getBody().getContent();
            switch (type) {
                case PKIBody.TYPE_INIT_REQ, PKIBody.TYPE_CERT_REQ, PKIBody.TYPE_KEY_UPDATE_REQ,
                        PKIBody.TYPE_P10_CERT_REQ -> {
                    X509CertificateHolder certificate = type == PKIBody.TYPE_P10_CERT_REQ
                            ? issue(CertificationRequest.getInstance(content))
                            : issue(CertReqMessages.getInstance(content), type == PKIBody.TYPE_KEY_UPDATE_REQ,
                                    requester);
                    if (!implicit) {
                        unconfirmed.put(id, new Issued(certificate, nonce));
                    }
                    CMPCertificate[] caPubs = requester == null
                            ? new CMPCertificate[] {new CMPCertificate(root.toASN1Structure())} : null;
                    ASN1Integer requestId = new ASN1Integer(type == PKIBody.TYPE_P10_CERT_REQ ? -1 : 0);
                    CMPCertificate encoded = new CMPCertificate(certificate.toASN1Structure());
                    CertResponse response = new CertResponse(requestId, new PKIStatusInfo(PKIStatus.granted),
                            new CertifiedKeyPair(new CertOrEncCert(encoded)), null);
                    int answer = switch (type) {
                        case PKIBody.TYPE_INIT_REQ -> PKIBody.TYPE_INIT_REP;
                        case PKIBody.TYPE_KEY_UPDATE_REQ -> PKIBody.TYPE_KEY_UPDATE_REP;
                        default -> PKIBody.TYPE_CERT_REP;
                    };
                    return new PKIBody(answer, new CertRepMessage(caPubs, new CertResponse[] {response}));
                }
                case PKIBody.TYPE_CERT_CONFIRM -> {
                    Issued issued = unconfirmed.remove(id);
                    check(issued != null, "nothing is to be confirmed in this transaction");
                    check(Arrays.equals(issued.nonce, request.getHeader().getRecipNonce().getOctets()),
                            "recipNonce is not the last senderNonce");
                    CertificateStatus[] statuses =
                            new CertificateConfirmationContent(CertConfirmContent.getInstance(content))
                            .getStatusMessages();
                    check(statuses.length == 1, "certConf is not for one certificate");
                    check(statuses[0].isVerified(issued.certificate, digests()),
                            "certHash is not that of the certificate");
                    check(statuses[0].getStatusInfo() == null
                            || statuses[0].getStatusInfo().getStatus().signum() == 0, "the certificate is rejected");
                    return new PKIBody(PKIBody.TYPE_CONFIRM, new PKIConfirmContent());
                }
                default -> throw new Refusal("messages of type " + type + " are not answered here");
            }
        }

        X509CertificateHolder issue(CertReqMessages messages, boolean update, X509CertificateHolder requester)
                throws Exception {
            check(messages.toCertReqMsgArray().length == 1, "there is not one request");
            CertificateRequestMessage message = new CertificateRequestMessage(messages.toCertReqMsgArray()[0]);
            CertTemplate template = message.getCertTemplate();
            check(message.toASN1Structure().getCertReq().getCertReqId().getValue().signum() == 0, "certReqId is not 0");
            check(message.getProofOfPossessionType() == CertificateRequestMessage.popSigningKey,
                    "possession is not proved by a signature");
            check(message.isValidSigningKeyPOP(new JcaContentVerifierProviderBuilder().setProvider("BC")
                    .build(template.getPublicKey())),
                    "the proof of possession is wrong");
            if (update) {
                check(requester != null, "kur is not signed");
                check(oldCertID(message)
                        .equals(new CertId(new GeneralName(requester.getIssuer()), requester.getSerialNumber())),
                        "oldCertID is not the requester's certificate");
            }
            return issue(template.getSubject(), template.getPublicKey(), template.getExtensions());
        }

        static CertId oldCertID(CertificateRequestMessage message) throws Refusal {
            check(message.hasControls(), "kur has no controls");
            for (AttributeTypeAndValue control
                    : message.toASN1Structure().getCertReq().getControls().toAttributeTypeAndValueArray()) {
                if (control.getType().equals(CMPObjectIdentifiers.regCtrl_oldCertID)) {
                    return CertId.getInstance(control.getValue());
                }
            }
            throw new Refusal("kur has no oldCertID");
        }

        X509CertificateHolder issue(CertificationRequest der) throws Exception {
            PKCS10CertificationRequest request = new PKCS10CertificationRequest(der);
            check(request.isSignatureValid(new JcaContentVerifierProviderBuilder().setProvider("BC")
                    .build(request.getSubjectPublicKeyInfo())),
                    "the signature of the PKCS#10 request is wrong");
            return issue(request.getSubject(), request.getSubjectPublicKeyInfo(), request.getRequestedExtensions());
        }

        X509CertificateHolder issue(X500Name subject, SubjectPublicKeyInfo subjectKey, Extensions extensions)
                throws Exception {
            // As strict CAs check it (RFC 8813, 3; RFC 8410, 5).
            KeyUsage usage = KeyUsage.fromExtensions(extensions);
            boolean rsa = subjectKey.getAlgorithm().getAlgorithm().equals(PKCSObjectIdentifiers.rsaEncryption);
            check(rsa || usage == null || !usage.hasUsages(KeyUsage.keyEncipherment),
                    "keyEncipherment is asked for with a key that cannot encipher");
            X509v3CertificateBuilder builder = certificate(subject, subjectKey, issuing.getSubject());
            for (ASN1ObjectIdentifier extension : extensions.getExtensionOIDs()) {
                builder.addExtension(extensions.getExtension(extension));
            }
            return builder.build(signer(key.getPrivate()));
        }
    }

    static class Requester {
        final String url;
        final String reference;
        final char[] secret;
        final X509CertificateHolder root;
        final GeneralName recipient =
                new GeneralName(new X500Name("O=DEVELOPMENT ONLY,CN=DEVELOPMENT ONLY Issuing CA"));

        Requester(String url, String reference, char[] secret, File rootFile) throws Exception {
            this.url = url;
            this.reference = reference;
            this.secret = secret;
            try (FileInputStream in = new FileInputStream(rootFile)) {
                X509Certificate parsed = (X509Certificate) CertificateFactory.getInstance("X.509")
                        .generateCertificate(in);
                root = new X509CertificateHolder(parsed.getEncoded());
            }
        }

        /** A key and its certificate. */
        record Identity(KeyPair key, X509CertificateHolder certificate) {}

        /** How requests are protected: by the MAC of that name, or by the signature of an identity. */
        record Protection(String mac, Identity identity) {}

        interface Attempt {
            void run() throws Exception;
        }

        void run() throws Exception {
            String[] macs = {"PBM SHA-256", "PBM SHA-1", "PBMAC1"};
            for (String mac : macs) {
                for (String operation : new String[] {"ir", "cr", "p10cr"}) {
                    enrolBothWays(mac, operation, new Protection(mac, null), newKey("EC"));
                }
                report(mac, "rr", "done", () -> revoke(new Protection(mac, null), first("EC").certificate));
            }
            for (Map.Entry<String, String> signature
                    : Map.of("RSA", "RSA", "ECDSA P-256", "EC", "Ed25519", "Ed25519").entrySet()) {
                String algorithm = signature.getValue();
                KeyPair next = newKey(algorithm); // one for all, since RSA keys take long
                Identity own = first(algorithm);
                for (String operation : new String[] {"ir", "cr", "p10cr", "kur"}) {
                    enrolBothWays(signature.getKey(), operation, new Protection(null, own), next);
                }
                report(signature.getKey(), "rr", "done", () -> revoke(new Protection(null, own), own.certificate));
            }
        }

        void enrolBothWays(String name, String operation, Protection protection, KeyPair key) {
            report(name, operation, "explicit", () -> enrol(operation, protection, key, false));
            report(name, operation, "implicit", () -> enrol(operation, protection, key, true));
        }

        void report(String protection, String operation, String how, Attempt attempt) {
            String line = protection + "\t" + operation + "\t" + how;
            try {
                attempt.run();
                System.out.println("passed\t" + line);
            } catch (Exception e) {
                System.out.println("failed\t" + line + "\t" + e);
                e.printStackTrace();
            }
        }

        /** Makes the MAC of one message; it cannot be used for another. */
        MacCalculator mac(String name) throws Exception {
            if (name.equals("PBMAC1")) {
                return new JcePBMac1CalculatorBuilder("HmacSHA256", 256).setProvider("BC").setIterationCount(1000)
                        .build(secret);
            }
            boolean sha1 = name.equals("PBM SHA-1");
            byte[] salt = nonce();
            AlgorithmIdentifier owf = new AlgorithmIdentifier(sha1 ? OIWObjectIdentifiers.idSHA1
                    : NISTObjectIdentifiers.id_sha256);
            AlgorithmIdentifier mac = new AlgorithmIdentifier(sha1 ? IANAObjectIdentifiers.hmacSHA1
                    : PKCSObjectIdentifiers.id_hmacWithSHA256, DERNull.INSTANCE);
            return new PKMACBuilder(new JcePKMACValuesCalculator().setProvider("BC"))
                    .setParameters(new PBMParameter(salt, owf, 1000, mac)).build(secret);
        }

        Identity first(String algorithm) throws Exception {
            return enrol("ir", new Protection("PBM SHA-256", null), newKey(algorithm), true);
        }

        Identity enrol(String operation, Protection protection, KeyPair key, boolean implicit) throws Exception {
            byte[] id = nonce();
            ProtectedPKIMessageBuilder builder = header(protection, id).setBody(request(operation, protection, key));
            if (implicit) {
                builder.addGeneralInfo(IMPLICIT_CONFIRM);
            }
            ProtectedPKIMessage answer = exchange(builder, protection, id, switch (operation) {
                case "ir" -> PKIBody.TYPE_INIT_REP;
                case "kur" -> PKIBody.TYPE_KEY_UPDATE_REP;
                default -> PKIBody.TYPE_CERT_REP;
            });
            CertRepMessage content = CertRepMessage.getInstance(answer.getBody().getContent());
            check(content.getResponse().length == 1, "there is not one response");
            CertResponse response = content.getResponse()[0];
            check(response.getStatus().getStatus().signum() == 0, "the status is " + response.getStatus().getStatus());
            X509CertificateHolder certificate = new X509CertificateHolder(
                    response.getCertifiedKeyPair().getCertOrEncCert().getCertificate().getX509v3PKCert());
            check(Arrays.equals(certificate.getSubjectPublicKeyInfo().getEncoded(), key.getPublic().getEncoded()),
                    "the certificate has another key");
            check(issuedBy(certificate, issuing(answer)), "the certificate is not by the CA");
            check(implicit == asksImplicitConfirm(answer.getHeader()), "implicitConfirm is not as asked");
            if (!implicit) {
                CertificateConfirmationContent confirmation = new CertificateConfirmationContentBuilder()
                        .addAcceptedCertificate(certificate, response.getCertReqId().getValue()).build(digests());
                exchange(header(protection, id).setRecipNonce(answer.getHeader().getSenderNonce().getOctets())
                        .setBody(new PKIBody(PKIBody.TYPE_CERT_CONFIRM, confirmation.toASN1Structure())), protection,
                        id, PKIBody.TYPE_CONFIRM);
            }
            return new Identity(key, certificate);
        }

        PKIBody request(String operation, Protection protection, KeyPair key) throws Exception {
            X500Name subject = new X500Name("O=Interop,CN=leaf");
            GeneralNames names = new GeneralNames(new GeneralName(GeneralName.dNSName, "leaf.example.org"));
            if (operation.equals("p10cr")) {
                return new PKIBody(PKIBody.TYPE_P10_CERT_REQ,
                        new JcaPKCS10CertificationRequestBuilder(subject, key.getPublic())
                        .build(signer(key.getPrivate())).toASN1Structure());
            }
            JcaCertificateRequestMessageBuilder builder = new JcaCertificateRequestMessageBuilder(BigInteger.ZERO);
            builder.setSubject(subject).setProofOfPossessionSigningKeySigner(signer(key.getPrivate()));
            builder.setPublicKey(key.getPublic()).addExtension(Extension.subjectAlternativeName, false, names);
            int type = operation.equals("ir") ? PKIBody.TYPE_INIT_REQ : PKIBody.TYPE_CERT_REQ;
            if (operation.equals("kur")) {
                type = PKIBody.TYPE_KEY_UPDATE_REQ;
                X509CertificateHolder old = protection.identity.certificate;
                builder.addControl(new OldCertID(new CertId(new GeneralName(old.getIssuer()), old.getSerialNumber())));
            }
            return new PKIBody(type, new CertReqMessages(builder.build().toASN1Structure()));
        }

        /** The control that says which certificate is to be updated. */
        record OldCertID(CertId id) implements Control {
            public ASN1ObjectIdentifier getType() {
                return CMPObjectIdentifiers.regCtrl_oldCertID;
            }

            public ASN1Encodable getValue() {
                return id;
            }
        }

        void revoke(Protection protection, X509CertificateHolder certificate) throws Exception {
            byte[] id = nonce();
            CertTemplate template = new CertTemplateBuilder().setIssuer(certificate.getIssuer())
                    .setSerialNumber(new ASN1Integer(certificate.getSerialNumber())).build();
            ProtectedPKIMessage answer = exchange(header(protection, id).setBody(
                    new PKIBody(PKIBody.TYPE_REVOCATION_REQ, new RevReqContent(new RevDetails(template)))),
                    protection, id, PKIBody.TYPE_REVOCATION_REP);
            PKIStatusInfo[] statuses = RevRepContent.getInstance(answer.getBody().getContent()).getStatus();
            check(statuses.length == 1 && statuses[0].getStatus().signum() == 0, "the certificate is not revoked");
        }

        ProtectedPKIMessageBuilder header(Protection protection, byte[] id) {
            GeneralName sender = protection.mac != null ? PKIHeader.NULL_NAME
                    : new GeneralName(protection.identity.certificate.getSubject());
            ProtectedPKIMessageBuilder builder = new ProtectedPKIMessageBuilder(sender, recipient)
                    .setMessageTime(new Date()).setTransactionID(id).setSenderNonce(nonce());
            if (protection.mac != null) {
                return builder.setSenderKID(reference.getBytes(StandardCharsets.UTF_8));
            }
            return builder.addCMPCertificate(protection.identity.certificate);
        }

        /** Sends a message and returns the answer, verified. */
        ProtectedPKIMessage exchange(ProtectedPKIMessageBuilder builder, Protection protection, byte[] id, int type)
                throws Exception {
            ProtectedPKIMessage request = protection.mac != null ? builder.build(mac(protection.mac))
                    : builder.build(signer(protection.identity.key.getPrivate()));
            GeneralPKIMessage general = new GeneralPKIMessage(post(request.toASN1Structure().getEncoded("DER")));
            if (general.getBody().getType() == PKIBody.TYPE_ERROR) {
                PKIStatusInfo info = ErrorMsgContent.getInstance(general.getBody().getContent()).getPKIStatusInfo();
                throw new Refusal("the CA answers with error: "
                        + info.getStatusString().getStringAtUTF8(0).getString());
            }
            ProtectedPKIMessage answer = new ProtectedPKIMessage(general);
            check(answer.getBody().getType() == type, "the answer is of type " + answer.getBody().getType());
            check(Arrays.equals(answer.getHeader().getTransactionID().getOctets(), id), "the transactionID is another");
            check(answer.getHeader().getRecipNonce().equals(request.getHeader().getSenderNonce()),
                    "recipNonce is not our senderNonce");
            if (protection.mac != null) {
                verifyMAC(answer, secret);
            } else {
                check(verifySignature(answer).equals(issuing(answer)), "the answer is not signed by the CA");
            }
            return answer;
        }

        /** The issuing CA among the certificates that came along, which the root has signed. */
        X509CertificateHolder issuing(ProtectedPKIMessage answer) throws Exception {
            for (X509CertificateHolder certificate : answer.getCertificates()) {
                if (!certificate.equals(root) && issuedBy(certificate, root)) {
                    return certificate;
                }
            }
            throw new Refusal("no certificate that the root has signed comes along");
        }

        byte[] post(byte[] der) throws Exception {
            HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection(Proxy.NO_PROXY);
            connection.setDoOutput(true);
            connection.setConnectTimeout(10_000);
            connection.setReadTimeout(10_000);
            connection.setRequestProperty("Content-Type", "application/pkixcmp");
            try (OutputStream out = connection.getOutputStream()) {
                out.write(der);
            }
            check(connection.getResponseCode() == 200, "the HTTP status is " + connection.getResponseCode());
            check(connection.getContentType().equals("application/pkixcmp"), "the content type is "
                    + connection.getContentType());
            return connection.getInputStream().readAllBytes();
        }
    }
}
