package pull_test

import (
	"runtime"
	"testing"
)

// However many cores there are, and so stages, the same layers come out and the
// same are refused for the same reason.
func TestCores(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for cores, name := range map[int]string{2: "two", 4: "four"} {
		runtime.GOMAXPROCS(cores)
		t.Run(name, func(t *testing.T) {
			t.Run("pulled", TestPullEncryptedSigned)
			t.Run("tampered blob", TestTamperedBlob)
			t.Run("tampered ciphertext", TestTamperedCiphertext)
			t.Run("exchanged keys", TestExchangedKeys)
		})
	}
}
