package profile

import "os"

// Compared are the loads of one program, a load for each round.
type Compared struct {
	Program string // the directory that it is in
	Options
	Loads []Load
}

// Compare measures several programs, certservice in a directory each, by the same loads and with the same devca: in
// turn, since what else the machine does changes from minute to minute.
func Compare(loader, devca string, programs []string, options []Options, rounds int) ([]Compared, error) {
	var all []Compared
	for _, o := range options {
		for _, program := range programs {
			all = append(all, Compared{Program: program, Options: o})
		}
	}
	for range rounds {
		for i := range all {
			l, err := measureOnce(loader, devca, &all[i])
			if err != nil {
				return nil, err
			}
			all[i].Loads = append(all[i].Loads, l)
		}
	}
	return all, nil
}

func measureOnce(loader, devca string, c *Compared) (l Load, err error) {
	dir, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return l, err
	}
	defer os.RemoveAll(dir)
	s, err := StartStack(c.Program, devca, dir, c.Environment...)
	if err != nil {
		return l, err
	}
	defer s.Stop()
	return Measured(loader, s, c.Options)
}
