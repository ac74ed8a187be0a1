package images

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// proxyVariables are the variables that name a proxy, by the scheme of what is asked for.
// Of each the first that is set counts, as for net/http.
var proxyVariables = map[string][]string{
	"http":  {"HTTP_PROXY", "http_proxy"},
	"https": {"HTTPS_PROXY", "https_proxy"},
}

// checkProxies refuses variables that name no proxy. net/http does without one then. No
// error repeats a value, which may hold a password.
func checkProxies() error {
	var errs []error
	for _, scheme := range []string{"http", "https"} {
		for _, name := range proxyVariables[scheme] {
			value := os.Getenv(name)
			if value == "" {
				continue
			}
			if !isProxy(value) {
				errs = append(errs, fmt.Errorf("reading environment variable %s: it is no proxy like http://USER:PASSWORD@HOST:PORT; what is special in user and password must be percent-encoded", name))
			}
			break
		}
	}
	return errors.Join(errs...)
}

// isProxy tells a proxy's URL, or its HOST:PORT. A password that is not encoded often
// makes another URL of it, with the rest in its path or fragment.
func isProxy(value string) bool {
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
		return false
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		return true
	}
	return false
}

// proxyError is the refusal of a proxy to connect us.
type proxyError struct {
	proxy  string // host and port
	scheme string // of what was asked for
	status int
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("proxy %s answers %d %s", e.proxy, e.status, http.StatusText(e.status))
}

// advice is what it means for the host that was asked for, and what the user can do.
func (e *proxyError) advice() string {
	variable := strings.ToUpper(proxyVariables[e.scheme][0])
	said := fmt.Sprintf("cannot be reached: the proxy %s ", e.proxy)
	switch {
	case e.status == http.StatusProxyAuthRequired:
		return said + fmt.Sprintf("refuses us without a right login: give its user and password in %s, percent-encoded", variable)
	case mayMend(e.status):
		return said + "does not get through to it: check whether it may, name the host in NO_PROXY if it needs none, or run the same command again later"
	}
	return said + fmt.Sprintf("refuses the connection: have the host allowed there, name it in NO_PROXY if it needs none, or check %s", variable)
}

// isLoginOfProxy tells the refusal of our login at a proxy. To repeat it can lock an account.
func isLoginOfProxy(err error) bool {
	var refused *proxyError
	return errors.As(err, &refused) && refused.status == http.StatusProxyAuthRequired
}

// connected is for [http.Transport.OnProxyConnectResponse].
func connected(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{proxy.Host, "https", resp.StatusCode}
}
