package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Step is one thing to ask for, as the caller of this program writes it.
type Step struct {
	Do       string    `json:"do"`
	Base     string    `json:"base"`
	Query    string    `json:"query"`
	Repo     *Repo     `json:"repo"`
	Pipeline *Pipeline `json:"pipeline"`
	Netrc    *Netrc    `json:"netrc"`
	RepoID   int64     `json:"repo_id"`
	Name     string    `json:"name"`
	Secret   *Secret   `json:"secret"`
	Page     int       `json:"page"`
	PerPage  int       `json:"per_page"`
	// Bodyless says how a request without a body goes out: "" covers the target alone and has no Content-Digest,
	// "digest" has the digest of the empty string, and "nil" is Woodpecker's configuration with no body at all.
	Bodyless string `json:"bodyless"`
}

// Outcome is what Woodpecker would have got, decoded into its types and encoded again, and what it took.
type Outcome struct {
	Status  int     `json:"status"`
	Got     any     `json:"got"`
	Error   string  `json:"error"`
	Sent    []Sent  `json:"sent"`
	Seconds float64 `json:"seconds"`
}

// call is a step as HTTP knows it.
type call struct {
	method, url string
	in, out     any
}

// nothing is a body that is there and empty: httpsign gives it a digest, which it does not for a body that is nil.
var nothing any = struct{}{}

// calling turns the step into HTTP. What the alpha form puts into the path is escaped as one segment.
func (s Step) calling(server string) (call, error) {
	secrets := server + s.Base + "/repo/" + strconv.FormatInt(s.RepoID, 10) + "/secrets"
	one := secrets + "/" + url.PathEscape(s.Name)
	var bodyless any
	if s.Bodyless == "digest" {
		bodyless = nothing
	}
	question := Question{s.Repo, s.Pipeline, s.Netrc}
	switch s.Do {
	case "secrets":
		return call{http.MethodPost, server + s.Base + "/secrets" + s.Query, question, &secretsAnswer{}}, nil
	case "registries":
		return call{http.MethodPost, server + s.Base + "/registries" + s.Query, question, &registriesAnswer{}}, nil
	case "empty":
		return call{http.MethodPost, server + s.Base + "/secrets" + s.Query, nothing, nil}, nil
	case "list":
		return call{http.MethodGet, secrets + s.paging(), bodyless, &[]*Secret{}}, nil
	case "find":
		return call{http.MethodGet, one, bodyless, &Secret{}}, nil
	case "create":
		return call{http.MethodPost, secrets, s.Secret, &Secret{}}, nil
	case "update":
		return call{http.MethodPut, one, s.Secret, &Secret{}}, nil
	case "delete":
		return call{http.MethodDelete, one, bodyless, nil}, nil
	}
	return call{}, fmt.Errorf("there is nothing called %q to do", s.Do)
}

func (s Step) paging() string {
	if s.Page == 0 && s.PerPage == 0 {
		return ""
	}
	return fmt.Sprintf("?page=%d&perPage=%d", s.Page, s.PerPage)
}

// take does the step, and says what came of it.
func (s Step) take(server string, by clients) Outcome {
	outcome := Outcome{Sent: []Sent{}}
	call, err := s.calling(server)
	if err != nil {
		outcome.Error = err.Error()
		return outcome
	}
	client := by.whole
	if call.in == nil && s.Bodyless != "nil" {
		client = by.targetOnly
	}
	started := time.Now()
	outcome.Status, err = send(noted(context.Background(), &outcome.Sent), client, call)
	outcome.Seconds = time.Since(started).Seconds()
	if err != nil {
		outcome.Error = err.Error()
	}
	outcome.Got = received(call.out, outcome.Status, err)
	return outcome
}

type secretsAnswer struct {
	Secrets []*Secret `json:"secrets"`
}

type registriesAnswer struct {
	Registries []*Registry `json:"registries"`
}

// received is what Woodpecker goes on with: in the released form nothing but a 200 gives it anything.
func received(out any, status int, err error) any {
	if err != nil {
		return nil
	}
	switch answer := out.(type) {
	case *secretsAnswer:
		if status != http.StatusOK {
			return nil
		}
		return answer.Secrets
	case *registriesAnswer:
		if status != http.StatusOK {
			return nil
		}
		return answer.Registries
	}
	return out
}
