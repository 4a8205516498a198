package cluster

import "time"

const (
	// reminderPause is the pause between two lines that say what is waited for.
	reminderPause = time.Minute

	// reminderQuiet is the pause before the first one, and before one that says something
	// else: servers rarely start at once.
	reminderQuiet = 2 * time.Second
)

// reminder limits the lines that say what is waited for. The first use starts it.
type reminder struct {
	text string
	said time.Time
}

// due reports whether a line with this text should be written now.
func (r *reminder) due(text string) bool {
	if r.said.IsZero() {
		r.said = time.Now().Add(reminderQuiet - reminderPause)
	}
	pause := reminderPause
	if r.text != "" && text != r.text {
		pause = reminderQuiet
	}
	if text == "" || time.Since(r.said) < pause {
		return false
	}
	r.text, r.said = text, time.Now()
	return true
}
