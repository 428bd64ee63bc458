import java.beans.XMLDecoder;
import java.io.FileInputStream;
import java.util.List;
import java.util.Map;

/** Prints what an end entity profile allows, from the map that EJBCA makes of its file. */
class ReadProfile {
    public static void main(String[] args) throws Exception {
        Map<?, ?> profile;
        try (XMLDecoder decoder = new XMLDecoder(new FileInputStream(args[0]))) {
            profile = (Map<?, ?>) decoder.readObject();
        }
        List<?> numbers = (List<?>) profile.get("NUMBERARRAY");
        String[] names = {"COMMONNAME", "ORGANIZATIONALUNIT", "ORGANIZATION", "LOCALITY", "STATE", "COUNTRY",
            "RFC822NAME", "DNSNAME", "IPADDRESS", "URI"};
        int[] kinds = {5, 11, 12, 13, 14, 16, 17, 18, 19, 21};
        for (int i = 0; i < kinds.length; i++) {
            int count = (Integer) numbers.get(kinds[i]);
            int required = 0;
            for (int n = 0; n < count; n++) {
                int key = 100 * n + kinds[i];
                if (!"".equals(profile.get(key)) || !Boolean.TRUE.equals(profile.get(1000000 + key))
                        || !Boolean.TRUE.equals(profile.get(3000000 + key))) {
                    throw new Exception(names[i] + " " + n + " is not a free field");
                }
                if ((Boolean) profile.get(2000000 + key)) {
                    required++;
                }
            }
            System.out.println(names[i] + " " + count + " required " + required);
        }
        System.out.println("certificate profiles " + profile.get(30) + ", default " + profile.get(29));
        System.out.println("subject order " + profile.get("SUBJECTDNFIELDORDER"));
        System.out.println("alternative names in order " + ((List<?>) profile.get("SUBJECTALTNAMEFIELDORDER")).size());
    }
}
