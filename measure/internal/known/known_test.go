package known

import "testing"

func TestTheOldestMakesRoom(t *testing.T) {
	s := New[Key, int](2)
	keys := []Key{Of([]byte("a")), Of([]byte("b")), Of([]byte("c"))}
	for i, k := range keys {
		s.Remember(k, 99)
		s.Remember(k, i) // in its place
	}
	if _, ok := s.Find(keys[0]); ok {
		t.Error("the oldest is still there")
	}
	for i, k := range keys[1:] {
		if v, ok := s.Find(k); !ok || v != i+1 {
			t.Errorf("value %d is %d, %v", i+1, v, ok)
		}
	}
}
