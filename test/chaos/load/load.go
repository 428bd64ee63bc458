// Package load attacks and loads the built certservice inside a cgroup with the limits of the chart, and watches what
// well-behaved clients see meanwhile.
package load
