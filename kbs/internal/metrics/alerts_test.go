package metrics

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// An alert on a metric that does not exist never fires.
func TestAlerts(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) < 10 {
		t.Fatalf("%+v", file)
	}
	page := Page()
	metric := regexp.MustCompile(`kbs_[a-z_]+`)
	for _, r := range file.Groups[0].Rules {
		names := metric.FindAllString(r.Expr, -1)
		if r.Alert == "" || len(names) == 0 || r.Labels["severity"] == "" || r.Annotations["summary"] == "" {
			t.Errorf("%+v", r)
		}
		for _, n := range names {
			if !strings.Contains(page, "| `"+n+"` |") {
				t.Errorf("%s: there is no metric %s", r.Alert, n)
			}
		}
	}
}
