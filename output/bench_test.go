package output

import "testing"

func openForBenchmark(b *testing.B, layout string, types ...string) *Volume {
	v, err := Open(Config{Dir: b.TempDir(), Types: types, Layout: layout})
	if err != nil {
		b.Fatal(err)
	}
	return v
}

// One publication is what an init container does; on a memory volume the time is that of the stores'
// password hashing, otherwise that of the disk's syncs.
func BenchmarkVolume_Publish(b *testing.B) {
	for _, row := range [][]string{{LayoutSymlink, TypeP12}, {LayoutInplace, TypeP12},
		{LayoutSymlink, TypeJKS}, {LayoutSymlink, TypePEM}} {
		b.Run(row[0]+"/"+row[1], func(b *testing.B) {
			bundle := newBundle()
			for b.Loop() {
				if _, err := openForBenchmark(b, row[0], row[1]).Publish(bundle); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What a sidecar does when one of its files may have been touched.
func BenchmarkVolume_Restore_unchanged(b *testing.B) {
	v := openForBenchmark(b, LayoutSymlink, FormatNames()...)
	if _, err := v.Publish(newBundle()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if p, err := v.Restore(); err != nil || p.Changed {
			b.Fatal(p, err)
		}
	}
}
