package pki

import (
	"crypto/x509"
	"time"
)

// longest is a span of which any share surely fits into a time.Duration, whose own end is at 292 years.
const longest = 1 << 62 * time.Nanosecond

// Moment is when the share, 0 to 1, of the time from one moment to another has gone by. Certificates may be valid to
// the year 9999 (RFC 5280, section 4.1.2.5), for longer than a time.Duration holds.
func Moment(from, to time.Time, share float64) time.Time {
	if span := to.Sub(from); -longest < span && span < longest {
		return from.Add(time.Duration(share * float64(span)))
	}
	return time.Unix(from.Unix()+int64(share*float64(to.Unix()-from.Unix())),
		int64(from.Nanosecond())).In(from.Location())
}

// Days is how many whole days are left from one moment to another; negative when that has gone by.
func Days(from, to time.Time) int {
	const day = 24 * 60 * 60
	seconds := to.Unix() - from.Unix()
	if to.Nanosecond() < from.Nanosecond() {
		seconds--
	}
	days := seconds / day
	if seconds%day < 0 {
		days--
	}
	return int(days)
}

// Stamp is a time as text (RFC 3339), in UTC.
func Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// ExpiresSoon tells whether less than a fifth of a certificate's life is left, and at most 30 days.
func ExpiresSoon(cert *x509.Certificate, now time.Time) bool {
	return cert.NotAfter.Sub(now) < min(30*24*time.Hour, cert.NotAfter.Sub(cert.NotBefore)/5)
}
