package buildinfo

import (
	"runtime/debug"
	"testing"
)

func TestABuildSaysWhatItIs(t *testing.T) {
	noted := func(version string, vcs ...string) *debug.BuildInfo {
		info := &debug.BuildInfo{Main: debug.Module{Version: version}}
		for i := 0; i < len(vcs); i += 2 {
			info.Settings = append(info.Settings, debug.BuildSetting{Key: vcs[i], Value: vcs[i+1]})
		}
		return info
	}
	for _, c := range []struct {
		linked Build
		noted  *debug.BuildInfo
		want   string
	}{
		{Build{}, noted("(devel)"), ""},
		{Build{}, noted("v1.0.0"), "v1.0.0"},
		{
			Build{}, noted("(devel)", "vcs.revision", "abc", "vcs.time", "then", "vcs.modified", "true"),
			"abc-dirty then",
		},
		{
			Build{"v2", "def", "now"}, noted("v1", "vcs.revision", "abc", "vcs.time", "then"),
			"v2 def now",
		},
	} {
		b := c.linked
		if b.fill(c.noted); b.String() != c.want {
			t.Errorf("%+v and %+v: %q, want %q", c.linked, c.noted, b, c.want)
		}
	}
	for commit, want := range map[string]string{
		"": "v1", "abc": "v1 abc", "0123456789abcdef": "v1 0123456789ab",
		"0123456789abcdef-dirty": "v1 0123456789ab-dirty",
	} {
		if got := (Build{"v1", commit, "now"}).Short(); got != want {
			t.Errorf("%q is %q for short, want %q", commit, got, want)
		}
	}
	version, commit = "v3", "xyz"
	defer func() { version, commit = "", "" }()
	if b := Of(); b.Version != "v3" || b.Commit != "xyz" {
		t.Errorf("the linker's are not used: %+v", b)
	}
	version, commit = "", ""
	if b := Of(); b.Version == "" || b.Version == "(devel)" {
		t.Errorf("it is %+v", b)
	}
}
