package certservice

import "sync"

// bounded keeps what is asked for again and again, and follows from its key. When there is no more room for it, all of
// it is forgotten.
type bounded[K comparable, V any] struct {
	most int

	mu sync.Mutex
	of map[K]V
}

// get returns what is kept, or makes it. Others need not wait for that, so that it may be made several times.
func (b *bounded[K, V]) get(key K, make func() V) V {
	b.mu.Lock()
	value, ok := b.of[key]
	b.mu.Unlock()
	if ok {
		return value
	}
	value = make()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of == nil || len(b.of) >= b.most {
		b.of = map[K]V{}
	}
	b.of[key] = value
	return value
}
