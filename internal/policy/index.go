package policy

import (
	"slices"
	"strconv"
)

// index finds the rules that may be for a client without looking at all of them: by what the texts
// that a condition wants begin with. The conditions themselves are checked afterwards.
type index struct {
	all     []*Rule
	general []int // rules that may be for every client
	fields  map[string]prefixes
	shared  int // conditions and lists of CAs that several rules have
}

// prefixes are the beginnings that conditions want of one field of a client.
type prefixes struct {
	rules   map[string][]int
	lengths []int
}

// worthAnIndex is from how many rules on the index is quicker than trying them.
const worthAnIndex = 8

const accountField = "account"

func newIndex(rules []*Rule) index {
	x := index{all: rules, fields: map[string]prefixes{}}
	x.share()
	for i, rule := range rules {
		for c := range rule.clients {
			field, prefix := rule.clients[c].narrowest()
			if prefix == "" {
				x.general = append(x.general, i)
				continue
			}
			p, ok := x.fields[field]
			if !ok {
				p.rules = map[string][]int{}
			}
			p.rules[prefix] = append(p.rules[prefix], i)
			if !slices.Contains(p.lengths, len(prefix)) {
				p.lengths = append(p.lengths, len(prefix))
			}
			x.fields[field] = p
		}
	}
	return x
}

// share numbers the conditions and lists of CAs that occur more than once.
func (x *index) share() {
	first := map[string]*int{}
	number := func(text string, to *int) {
		same, ok := first[text]
		switch {
		case !ok:
			first[text] = to
			return
		case *same == 0:
			x.shared++
			*same = x.shared
		}
		*to = *same
	}
	for _, rule := range x.all {
		cas := "cas"
		for _, p := range rule.cas {
			cas += " " + strconv.Quote(p.text)
		}
		number(cas, &rule.sharedCAs)
		for i := range rule.clients {
			number("client "+rule.clients[i].text, &rule.clients[i].shared)
		}
	}
}

// narrowest is the part of a condition whose text has the longest known beginning.
func (c *clientCondition) narrowest() (field, prefix string) {
	take := func(of string, p *pattern) {
		if len(p.pieces) > 0 && len(p.pieces[0].literal) > len(prefix) {
			field, prefix = of, p.pieces[0].literal
		}
	}
	for i := range c.attributes {
		take(c.attributes[i].kind, &c.attributes[i].pattern)
	}
	if c.account != nil {
		take(accountField, c.account)
	}
	if c.san != nil {
		for kind, patterns := range map[nameKind][]pattern{
			kindDNS: c.san.names.dns, kindURI: c.san.names.uri, kindEmail: c.san.names.email} {
			for i := range patterns { // one at most
				take(string(kind), &patterns[i])
			}
		}
	}
	return field, prefix
}

// candidates appends the places of the rules that may be for a client to a buffer, in their order.
func (x *index) candidates(found []int, s *subject) []int {
	if len(x.all) < worthAnIndex {
		for i := range x.all {
			found = append(found, i)
		}
		return found
	}
	found = append(found, x.general...)
	for i := range s.attributes {
		found = x.add(found, s.attributes[i].kind, s.attributes[i].value)
	}
	for i := range s.names {
		found = x.add(found, string(s.names[i].kind), s.names[i].form)
	}
	if s.account != nil {
		found = x.add(found, accountField, s.accountText)
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func (x *index) add(found []int, field, text string) []int {
	p := x.fields[field]
	for _, length := range p.lengths {
		if length <= len(text) {
			found = append(found, p.rules[text[:length]]...)
		}
	}
	return found
}
