package program

import (
	"net"
	"os"
)

// ReportReady tells systemd that the program does what others wait for, where systemd has started it and wants to know
// (Type=notify, sd_notify(3)). Without that it does nothing; nor does it where systemd has gone, as the program serves
// all the same.
func ReportReady() {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("READY=1"))
}
