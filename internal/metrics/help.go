package metrics

// help says what each series is, for whoever explores them.
var help = map[string]string{
	"certfetcher_build_info":                                 "Always 1; the labels are the program's version and that of Go.",
	"certfetcher_certificate_expiry_timestamp_seconds":       "End of the published certificate, in Unix time.",
	"certfetcher_certificate_not_before_timestamp_seconds":   "Beginning of the published certificate, in Unix time.",
	"certfetcher_mtls_identity_expiry_timestamp_seconds":     "End of the certificate shown to the CertService, in Unix time.",
	"certfetcher_mtls_identity_last_reload_successful":       "Whether the mutual TLS files could be used when they were last read: 1 or 0.",
	"certfetcher_mtls_identity_not_before_timestamp_seconds": "Beginning of the certificate shown to the CertService, in Unix time.",
	"certfetcher_mtls_identity_reloads_total":                "Replacements of the mutual TLS files, by outcome: ok, or failed when the old identity was kept.",
	"certfetcher_next_renewal_timestamp_seconds":             "When the certificate is renewed, or that is tried again, in Unix time.",
	"certfetcher_notifications_total":                        "Tries to tell the application of a certificate, or to see it served, by kind and outcome.",
	"certfetcher_renewal_failed_tries":                       "Tries to renew that have failed since the last success.",
	"certfetcher_renewal_failures_total":                     "Failed tries to renew, by the stage that failed.",
	"certfetcher_renewal_overdue_seconds":                    "For how long the renewal has been due; 0 before.",
	"certfetcher_renewals_total":                             "Tries to renew, by outcome: updated, enrolled anew, or failed.",
	"certfetcher_restorations_total":                         "Times that published files had vanished or changed and were put back.",
	"certfetcher_served_certificate_matches":                 "Whether the application was last seen to serve the published certificate: 1 or 0.",
}
