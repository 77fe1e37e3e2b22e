package main

import (
	"strings"
	"testing"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/measure/tpmdev/swtpmtest"
)

// The four steps, for each endorsement key of a TPM that swtpm_setup made; and a
// TPM that nobody certified.
func TestEnroll(t *testing.T) {
	path, roots := swtpmtest.Manufactured(t, "--rsa-keysize", "3072")
	b := newBench(t)
	b.write("maker.pem", string(roots))
	for name, flags := range map[string][]string{"H-3": nil, "H-6": {"--ek-template", "H-6"}} {
		request, _ := b.measure(fault.ExitOK, append([]string{"enroll", "request", "--tpm-device", path}, flags...)...)
		if !strings.Contains(request, `"ek_template": "`+name+`"`) {
			t.Errorf("not of %s: %s", name, request)
		}
		b.write("request.json", request)
		challenge, told := b.measure(fault.ExitOK, "enroll", "challenge", "@request.json", "--manufacturer", "maker=@maker.pem", "--allow-no-revocation", "--pending", "@"+name)
		if !strings.Contains(told, "a TPM of maker") {
			t.Errorf("stderr %q", told)
		}
		b.write("challenge.json", challenge)
		answer, _ := b.measure(fault.ExitOK, "enroll", "answer", "@challenge.json", "--tpm-device", path)
		b.write("answer.json", answer)
		key, _ := b.measure(fault.ExitOK, "enroll", "finish", "@answer.json", "--pending", "@"+name)
		if !strings.HasPrefix(key, "-----BEGIN PUBLIC KEY-----") {
			t.Error(key)
		}
		b.write("other.json", strings.Replace(challenge, name, "L-2", 1))
		b.measure(fault.ExitUsage, "enroll", "answer", "@other.json", "--tpm-device", path)
		b.write("unknown.json", strings.Replace(challenge, name, "H-5", 1))
		_, told = b.measure(fault.ExitUsage, "enroll", "answer", "@unknown.json", "--tpm-device", path)
		if !strings.Contains(told, "not built") {
			t.Errorf("stderr %q", told)
		}
	}
	_, told := b.measure(fault.ExitUsage, "enroll", "request", "--tpm-device", swtpmtest.Socket(t))
	if !strings.Contains(told, "no certificate of an endorsement key") {
		t.Errorf("stderr %q", told)
	}
}
