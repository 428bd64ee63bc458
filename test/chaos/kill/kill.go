// Package kill ends the built programs at each system call that changes a file, or sends a message of an enrolment by
// CMP, and makes such calls fail, by tracing them from outside with ptrace(2). Nothing in the programs knows of it. It
// works on Linux with amd64.
package kill
