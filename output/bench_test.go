package output

import (
	"testing"
	"time"
)

// One publication is what an init container does; on a memory volume the time is that of the stores'
// password hashing, else that of the disk's syncs.
func BenchmarkVolume_Publish(b *testing.B) {
	for _, row := range []struct {
		layout, outputType string
	}{{LayoutSymlink, TypeP12}, {LayoutInplace, TypeP12}, {LayoutSymlink, TypeJKS}, {LayoutSymlink, TypePEM}} {
		b.Run(row.layout+"/"+row.outputType, func(b *testing.B) {
			bundle := newBundle()
			for b.Loop() {
				v, err := Open(Config{Dir: b.TempDir(), Types: []string{row.outputType}, Layout: row.layout, Now: time.Now})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := v.Publish(bundle); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What a sidecar does when one of its files may have been touched.
func BenchmarkVolume_Restore_nothingAmiss(b *testing.B) {
	v, err := Open(Config{Dir: b.TempDir(), Types: []string{TypeP12, TypeJKS, TypePEM}})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := v.Publish(newBundle()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if p, err := v.Restore(); err != nil || p.Changed {
			b.Fatal(p, err)
		}
	}
}
