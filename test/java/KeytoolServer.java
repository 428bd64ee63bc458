import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.List;

/**
 * Runs keytool's own main method again and again, so that a JVM starts once and not for each run. A request on standard
 * input is the number of arguments and then each on a line of its own; -J-DNAME=VALUE sets a system property for one
 * run. The answer is one line, with true or false for success and the number of bytes that keytool has printed, and
 * then those bytes. A failure ends the JVM, as keytool does that.
 */
public class KeytoolServer {
    public static void main(String[] none) throws Exception {
        var keytool = Class.forName("sun.security.tools.keytool.Main").getMethod("main", String[].class);
        var requests = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        PrintStream answers = System.out;
        var printed = new ByteArrayOutputStream();
        var failure = new Thread(() -> answer(answers, false, printed));
        Runtime.getRuntime().addShutdownHook(failure);
        for (String count = requests.readLine(); count != null; count = requests.readLine()) {
            List<String> arguments = new ArrayList<>(), properties = new ArrayList<>();
            for (int i = 0; i < Integer.parseInt(count); i++) {
                String argument = requests.readLine();
                if (argument.startsWith("-J-D")) {
                    String[] property = (argument.substring(4) + "=").split("=", 3);
                    System.setProperty(property[0], property[1]);
                    properties.add(property[0]);
                } else {
                    arguments.add(argument);
                }
            }
            printed.reset();
            var printing = new PrintStream(printed, true, "UTF-8");
            System.setOut(printing);
            System.setErr(printing);
            keytool.invoke(null, (Object) arguments.toArray(new String[0]));
            properties.forEach(System::clearProperty);
            answer(answers, true, printed);
        }
        Runtime.getRuntime().removeShutdownHook(failure);
    }

    private static void answer(PrintStream answers, boolean succeeded, ByteArrayOutputStream printed) {
        answers.println(succeeded + " " + printed.size());
        answers.write(printed.toByteArray(), 0, printed.size());
        answers.flush();
    }
}
