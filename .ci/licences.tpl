# Licences

What is compiled into the programs, and under which licence. `.ci/audit --update` writes this list; CI refuses a module
with another licence than Apache-2.0, BSD-2-Clause, BSD-3-Clause, ISC or MIT.

| module | licence |
|---|---|
{{range .}}| {{.Name}} | {{.LicenseName}} |
{{end}}
