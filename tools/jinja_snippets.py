"""Writes what Python's jinja2 makes of snippets of templates, to crates/metallic/tests/text/jinja.json.

    pip install jinja2==3.1.6 transformers==5.24.0
    python tools/jinja_snippets.py

jinja2 is set up by transformers itself. The snippets are made here: every filter, test, method and operator with
values of all kinds. The file has the variables that the snippets know, the time, and for each snippet its text, or
null where rendering fails. A snippet whose text holds an address in memory says nothing and is left out.
"""

import copy
import datetime
import itertools
import json
from pathlib import Path

from transformers.utils import chat_template_utils

OUT = Path(__file__).parent.parent / "crates/metallic/tests/text/jinja.json"
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5)

VARIABLES = {
    "text": "Hello, wörld! it's <b>\"bold\"</b>",
    "lines": "one\n two\n\nthree  \n",
    "words": "the quick-brown fox  jumps over the lazy dog, and self-evidently sleeps",
    "numbers": [3, 1, 2, 3, -5],
    "names": ["bob", "Alice", "carol", "alice"],
    "mixed": [1, "a", None, True, 2.5, [1], {"k": "v"}],
    "people": [
        {"name": "Bob", "age": 30, "tags": ["x", "y"], "home": {"city": "Rome"}},
        {"name": "alice", "age": 25, "tags": [], "home": {"city": "Oslo"}},
        {"name": "Carol", "age": 30, "home": {"city": "Bern"}},
    ],
    "nested": {"b": {"y": [1, 2.0, {"z": None}], "x": "é\t"}, "a": True, "items": "own", "10": 1e-7},
    "tree": [{"v": 1, "c": [{"v": 2, "c": [{"v": 3, "c": []}]}, {"v": 4, "c": []}]}],
    "none": None,
    "zero": 0,
    "big": 12345678901234567890,
    "half": 0.5,
    "infinite": "inf",
    "unknown": "nan",
}

LITERALS = r"""
0 00 1_000 0x1F 0b101 0o17 -5 1.0 1.50 1e3 1e15 1e16 1e-4 1e-5 1e-7 1.5e300 123456789.123456789 0.1+0.2 1e22 2.5E-1
1e999 -1e999 1e999-1e999 -0.0 true True false False none None [] () {} (1,) (1,2) [1,] [[],[()]] {'a':1,} {1:2} {1.0:1,'b':(2,)}
{true:1} [True,None,0.1] 'a' "b" 'it\'s' "it's" 'say_"hi"' '\'"' '\\' '\n' '\t' 'a\x41b' '\101' '\u00e9' '\U0001F600' '\q' '\0' '\a\b\f\v'
'a''b' ['it\'s'] ['"'] ['\'"'] ['\n\t\\\r'] ['\x00\x7f\x80'] ['é世😀'] ['\u200b\u00a0\u2028'] [1e16,1e-7] [1e999] {'k':1e16}
big big+1 big*big big*big*big half 1==1.0 1==True 'a'=='a' [1]==(1,) [1,2]==[1,2] none==undefined {}=={} {'a':1,'b':2}=={'b':2,'a':1}
nothing nothing.x nothing['x'] nothing() none.x none['x'] text.x text[0] text[-1] text[99] numbers[0] numbers[-1] numbers[9] numbers.0
nested.a nested.b.x nested['b']['y'][1] nested.nope nested.nope.x nested['10'] nested.items nested['items'] people[0].name people[0]['tags'][1]
nested.b.y.2.z text.upper [1,2].x (1).x 1.5.x true.x [nothing] {'a':nothing} (nothing,) nothing~nothing
"""

BINARY = ["1", "2", "-7", "2.5", "true", "'ab'", "[1, 2]", "(1, 2)", "{'a': 1}", "none", "nothing", "0"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "<", "==", "in", ">="]

EXPRESSIONS = r"""
2**3**2 -2**2 2**-1 2**0.5 0**0 2**100 2**64 -7//2 -7%3 7%-3 -7.5//2 7.5%-2 10/4 10//4 1/3 2/1 1e308*10 10**20 10**400 10.0**400 (-8)**0.5
1+2*3 (1+2)*3 1+2~3 1~2+3 'a'~1~none~true~1.0 10-2-3 100//7//2 2*3%4 1<2<3 1<3<2 3>2>=2 1==1==1 1<2>1 not_true
not true not none not '' not [] not 0.0 not not 1 not 1==2 1 and 2 0 and 2 '' or 'x' 0 or '' or none 1 or nothing.x true and not false
""".split("\n")

SNIPPETS = []


def add(*templates):
    SNIPPETS.extend(templates)


def show(*expressions):
    """Expressions between braces."""
    add(*("{{ " + expression + " }}" for expression in expressions))


def lines(text):
    return [line for line in text.split("\n") if line.strip()]


def literals_and_operators():
    show(*(word.replace("_", " ") if word.startswith("'say") else word for word in LITERALS.split()))
    for a, operator, b in itertools.product(BINARY, OPERATORS, BINARY):
        show(f"{a} {operator} {b}")
    show(*EXPRESSIONS[1].split())
    show(*EXPRESSIONS[2].split())
    show(
        *lines("""
not true
not none
not ''
not 1 == 2
not not 1
1 and 2
0 and 2
'' or 'x'
0 or '' or none
1 or nothing.x
true and not false or none
1 if true
1 if false
1 if false else 2
1 if 0 else 2 if 0 else 3
[1 if true else 2, 3]
'a' if nothing else 'b'
1, 2
1,
'a' 'b' "c"
x if x is defined else 'no'
-1|abs
-numbers[0]
+5
-'a'
+none
--5
1 not in [2]
1 not in numbers
'a' in 'cat'
'' in ''
1 in 'cat'
'a' in nested
'zz' in nested
'b' not in nested
1 in (1,)
(1,) in [(1,)]
1 in none
1 in nothing
'x' in people[0].tags
[1, 2] < [1, 3]
(1, 2) < (1,)
'a' < 'B'
'é' > 'z'
1 < 'a'
none < 1
true < 2
1.5 <= 1.5
[1] < (2,)
{} < {}
'10' < '9'
'abc' * 2
2 * 'ab'
'ab' * -1
'ab' * true
[1] * 3
3 * (1, 2)
'a' * 2.0
'a' * 'b'
[1] + [2] + [3]
[1] + (2,)
(1,) + (2,)
'a' + 1
'a' + 'b' + 'c'
none + 1
true + true
1 + 1.0
1 / 0
1 // 0
1 % 0
1.0 / 0
5 % 0.0
0 ** -1
1.0 // 0.3
-1 % 0.3
1e300 * 1e10
[1] == [1.0]
'a' == 'A'
nothing == none
nothing == nothing
nothing + 1
nothing ~ 'a'
nothing < 1
-nothing
nothing|length
nothing[0]
"'%s' % 1"
9007199254740993 + 0.0
9007199254740993 * 1
170141183460469231731687303715884105727
-170141183460469231731687303715884105728
(1).real
(2.0).is_integer()
(2.5).is_integer()
(255).bit_length()
text[1:4]
text[:3]
text[-3:]
text[::2]
text[::-1]
text[5:1:-1]
text[:-99]
text[99:]
range(9)[1:5:2]
range(9)[::-1]
names|map("upper")|first
not 5|map("upper")
not 5|batch(2)
5|batch(2)|list
[text|safe]
[text|e]
half[1:]
nested[1:]
1 <= not 2
text[1:4:0]
text['a':]
numbers[1:3]
numbers[::-1]
numbers[-2:]
numbers[:]
numbers[:-1]
(1, 2, 3)[1:]
(1, 2, 3)[::-1]
numbers[::2]
range(9)[2]
none[1:]
nothing[1:]
numbers[none:2]
numbers['x']
text['x']
nested[none]
nested[1]
{1: 'a'}[1]
{1: 'a'}[1.0]
{'a': 1}.a
{'a': {'b': [1, {'c': 2}]}}.a.b[1].c
[[1, 2], [3]][0][1]
(1, (2, 3))[1][0]
""")
    )


METHODS = r"""
upper() lower() title() capitalize() swapcase() casefold() strip() lstrip() rstrip() split() rsplit() splitlines() splitlines(true)
isalpha() isdigit() isalnum() isspace() isupper() islower() istitle() isascii() isnumeric() isdecimal() isidentifier() isprintable()
split(',') split('o') split(',',1) split(none,1) split(none,2) rsplit(none,1) split('') split(sep='o',maxsplit=1) rsplit('o',1) rsplit(',') rsplit('l',maxsplit=1)
strip('H>') lstrip('He') rstrip('>b') strip('') strip(none) strip(1)
replace('l','L') replace('l','L',1) replace('','-') replace('l','') replace('x','y',0) replace('l','L',-1) replace(1,2) replace('l')
find('o') find('o',5) find('o',0,3) find('zz') rfind('o') rfind('l',0,5) index('o') index('zz') rindex('l') rindex('zz') find('') find('o',-5) find('o',-5,-1) find()
count('l') count('') count('ll') count('l',3) count('l',0,4)
startswith('He') startswith(('x','He')) startswith('l',2) endswith('>') endswith(('a','>')) startswith(1) startswith(['a']) startswith('') endswith('b',0,3) startswith('H',99)
removeprefix('He') removesuffix('>') removeprefix('x') removesuffix('') partition(',') rpartition('o') partition('zz') rpartition('zz') partition('')
center(40) center(41,'*') center(3) ljust(40,'.') rjust(40,'.') ljust(2) center(40,'ab') zfill(40) zfill(3) zfill(-1) expandtabs() expandtabs(3)
join(['a','b']) join('xyz') join([1]) join([]) join(nested) join(nothing) format(1) nope() encode().x __class__ upper(1) upper(x=1)
""".split()

STRINGS = ["text", "lines", "'abc'", "'-42'", "''", "'a\\tb\\tc\\n\\td'", "'Ünïcödé ß'", "'  x y  z '"]


def methods():
    for value, method in itertools.product(STRINGS[:3] + STRINGS[6:], METHODS):
        show(f"{value}.{method}")
    for value in STRINGS:
        show(*(f"{value}.{method}" for method in METHODS[:24]))
    show(*(f"{value}.zfill(5)" for value in ["'-42'", "'+7'", "'7'", "''", "'--1'"]))
    show("'a\\tb\\tc\\n\\td'.expandtabs(4)", "'a\\r\\nb\\rc\\x0bd\\x1ce\\u2028f'.splitlines()", "'a b\\x1fc'.split()")
    show("'Ab Cd'.istitle()", "'AbC'.istitle()", "'1a'.isidentifier()", "'_a1'.isidentifier()", "'²'.isdigit()", "'½'.isnumeric()")
    show(
        *lines("""
numbers.count(3)
numbers.index(2)
numbers.index(99)
numbers.index(3, 1)
numbers.index(3, -2)
numbers.index(3, 0, 1)
numbers.copy()
numbers.append(1)
numbers.pop()
numbers.sort()
numbers.reverse()
numbers.extend([1])
numbers.nope()
(1, 2, 1).count(1)
(1, 2, 1).index(2)
(1, 2).copy()
nested.get('a')
nested.get('zz')
nested.get('zz', 5)
nested.get('a', default=1)
nested.get()
nested.keys()
nested.values()
nested.items()
nested.keys()|list
nested.values()|list
nested.items()|list
nested.items()|length
nested.copy() == nested
nested.copy().a
nested.pop('a')
nested.update({})
nested.setdefault('a', 1)
nested.clear()
nested.nope()
nested.keys()[0]
nested.keys()|tojson
{}.keys()
{}.items()
'a' in nested.keys()
('a', true) in nested.items()
{'items': 1}.items()
{'get': 2}.get('get')
{'keys': [1]}.keys()|list
{'items': 1}.items is defined
{'items': 1}['items']
{'count': 3}.count
{'index': 3}.index
{'title': 'T'}.title
{'f': 1}.f()
nested.items() is sequence
nested.items() is iterable
nested.items() is mapping
none.get('a')
(5).upper()
nothing.upper()
[].index(1)
'abc'.upper is callable
nested.get is callable
numbers.copy is callable
'x'.join is defined
'x'.nope is defined
nested.a is callable
""")
    )


FORMATS = ["%s", "%r", "%d", "%5d|", "%-5d|", "%05d", "%+d", "% d", "%x", "%X", "%#x", "%o", "%#o", "%e", "%.2e", "%E", "%f", "%.1f", "%8.3f|", "%-8.3f|", "%08.2f", "%g", "%.3g", "%G", "%c", "%i", "%u", "%5s|", "%-5s|", "%.1s", "%5.1s|", "%a", "%%", "%", "%z", "%.3d", "%+.2f", "%#.0f", "%s %s", "%ld"]
SPECS = ["", "d", "5", "<5", ">5", "^5", "*^7", "05", "+", "+d", " d", ",", "_", "x", "#x", "X", "o", "b", "#b", "c", "e", ".2e", "f", ".1f", "8.2f", "g", ".3g", "%", ".1%", "8.1%", "s", "<8s", ".1s", "n", "E", "=+7", "<05", "zz", ",.2f", "010,d", "!r", "r"]
NUMBERS = ["42", "-7", "3.14159", "1e20", "0.00001", "true", "'ab'", "none", "[1]", "(1, 2)", "infinite|float", "unknown|float", "big"]


def formats():
    for format, value in itertools.product(FORMATS, NUMBERS):
        show(f"'{format}' % {value}")
    for spec, value in itertools.product(SPECS, NUMBERS):
        show(f"'{{:{spec}}}'.format({value})")
    show(
        *lines("""
'%s-%d' % ('a', 3)
'%s' % (1, 2)
'%s %s' % 1
'%s' % ()
'%s' % ((1, 2),)
'%(a)s %(b)05.1f' % {'a': 1, 'b': 2}
'%(a)s' % {'b': 1}
'%(a)s' % 1
'x' % {'a': 1}
'x' % 1
'x' % ()
'%s' % {'a': 1}
'%*d|' % (5, 42)
'%-*d|' % (5, 42)
'%.*f' % (2, 3.14159)
'%s %%' % 5
'%5%|' % ()
'%s' % nothing
'%d' % '5'
'%c' % 'ab'
'%c%c' % (65, 'b')
'%s'|format(1)
'%s %s'|format(1, 'a')
'%(a)s'|format(a=1)
'%s'|format(1, a=2)
'%s'|format
'%d items'|format(numbers|length)
5|format(1)
'{} {}'.format(1, 'a')
'{0} {1} {0}'.format('a', 'b')
'{a} {b}'.format(a=1, b=2)
'{a[0]} {a[1]}'.format(a=[1, 2])
'{p[name]}'.format(p=people[0])
'{0[name]}'.format(people[0])
'{{}} {}'.format(1)
'{'.format(1)
'}'.format(1)
'{}'.format()
'{0}'.format()
'{x}'.format(1)
'{!r} {!s} {!a}'.format('é', 'b', 'é')
'{:{}}|'.format(1, 5)
'{:>{w}}|'.format('a', w=4)
'{a:>5}|'.format(a='x')
'{} {} {}'.format(none, true, 1.0)
'{} {}'.format([1, 'a'], {'k': 1e16})
'{:5}|'.format(none)
'{a}'.format_map({'a': 1})
'{}'.format('{}')
""")
    )


FILTERS = r"""
abs|attr('a')|batch(2)|list|batch(2,'-')|list|capitalize|center(9)|count|default('d')|default('d',true)|d|dictsort|dictsort(true)|dictsort(by='value')|dictsort(reverse=true)|escape|e|filesizeformat|filesizeformat(true)|first|float|float(1.5)|forceescape|int|int(7)|int(base=16)|indent|indent(2)|indent(2,true)|indent(first=true)|indent('> ')|indent(2,blank=true)|items|list|join|join(',')|join('-')|last|length|list|lower|upper|title|trim|trim('H')|max|min|pprint|reverse|list|round|round(1)|round(2,'floor')|round(method='ceil')|round(-1)|safe|slice(2)|list|slice(2,'-')|list|sort|sort(true)|sort(case_sensitive=true)|string|striptags|sum|sum(start=10)|tojson|tojson(indent=2)|truncate(9)|truncate(9,true)|truncate(9,true,'!')|truncate(9,false,'..',0)|truncate(2)|unique|list|urlencode|wordcount|wordwrap(10)|wordwrap(10,false)|wordwrap(12,wrapstring='/')|xmlattr|nope|map('upper')|list|select|list|reject|list|replace('l','L')|replace('l','L',1)|groupby('x')|list
"""

INPUTS = ["text", "lines", "words", "numbers", "names", "nested", "none", "nothing", "3.7", "-2.5", "'42'", "'3.9'", "'0x1f'", "true", "big", "(3, 1, 2)", "[]", "''", "range(5)", "'abc'"]


def filters():
    chain = []
    for part in FILTERS.strip().split("|"):
        if part == "list" and chain and chain[-1].split("(")[0] in {"batch", "slice", "reverse", "unique", "map", "select", "reject", "groupby", "items"} and not chain[-1].endswith("|list"):
            chain[-1] += "|list"
        else:
            chain.append(part)
    for value, filter in itertools.product(INPUTS, dict.fromkeys(chain)):
        show(f"{value}|{filter}")
    show(
        *lines("""
people|map(attribute='name')|list
people|map(attribute='home.city')|join(', ')
people|map(attribute='tags')|list
people|map(attribute='tags', default='none')|list
people|map(attribute='tags.0')|list
people|map(attribute='nope')|list
people|map(attribute='nope')|join(',')
people|map('tojson')|list
people|map(attribute='age')|sum
people|sum(attribute='age')
people|sum('age')
people|selectattr('tags')|map(attribute='name')|list
people|rejectattr('tags')|map(attribute='name')|list
people|selectattr('age', 'gt', 26)|map(attribute='name')|list
people|selectattr('age', '>', 26)|list|length
people|selectattr('age', 'equalto', 30)|map(attribute='name')|list
people|selectattr('name', 'in', ['Bob', 'Carol'])|map(attribute='age')|list
people|selectattr('tags', 'defined')|list|length
people|rejectattr('tags', 'undefined')|list|length
people|selectattr('home.city', 'equalto', 'Oslo')|map(attribute='name')|first
people|selectattr('age', 'nope')|list
people|sort(attribute='name')|map(attribute='name')|list
people|sort(attribute='age,name')|map(attribute='name')|list
people|sort(attribute='age', reverse=true)|map(attribute='name')|list
people|sort(attribute='name', case_sensitive=true)|map(attribute='name')|list
people|sort(attribute='home.city')|map(attribute='name')|list
people|sort
people|groupby('age')
people|groupby('age')|map('first')|list
people|groupby('age')|map(attribute='grouper')|list
people|groupby('age')|map(attribute='list')|map('length')|list
people|groupby('home.city')|map('first')|list
people|groupby('tags', default=[])|length
people|groupby('nope', default='?')|map('first')|list
people|groupby('name')|map('first')|list
people|groupby('name', case_sensitive=true)|map('first')|list
people|unique(attribute='age')|map(attribute='name')|list
people|unique|list
people|max(attribute='age')
people|min(attribute='age')|tojson
people|map('first')|list
people|tojson
people|tojson(indent=1)
people|first
people|last
people|length
people|join(', ', attribute='name')
people|batch(2)|map('length')|list
people|map('attr', 'name')|list
names|sort
names|sort(case_sensitive=true)
names|unique|list
names|unique(true)|list
names|map('capitalize')|join(' ')
names|map('replace', 'a', 'A')|list
names|map('upper')
names|map('upper')|first
names|map('upper')|last
names|map('upper')|length
names|map('upper')|reverse|list
names|map('upper')|tojson
names|map('upper')|list|tojson
names|select('equalto', 'bob')|list
names|reject('in', ['bob'])|list
names|select('string')|list|length
names|select('upper')|list
names|map('nope')|list
names|map()|list
names|map(upper)|list
names|max
names|min
names|max(case_sensitive=true)
numbers|select('odd')|list
numbers|reject('odd')|list
numbers|select('divisibleby', 3)|list
numbers|select('>', 1)|list
numbers|map('abs')|sort|list
numbers|sort|reverse|list
numbers|sort(reverse=true)
numbers|map('string')|join('+')
numbers|sum / numbers|length
numbers|join
numbers|slice(3)|list
numbers|slice(3, 'x')|list
numbers|slice(7)|list
numbers|slice(0)|list
numbers|batch(3)|list
numbers|batch(3, 0)|list
numbers|batch(0)|list
numbers|batch|list
numbers|first
[]|first
[]|last
[]|max
[]|min
[]|sum
[]|join
mixed|list
mixed|join('|')
mixed|sort
mixed|max
mixed|tojson
mixed|string
mixed|select|list
mixed|select('none')|list
mixed|map('string')|list
mixed|map('tojson')|join
mixed|select('number')|list
mixed|sum
nested|dictsort
nested|dictsort(false, 'value')
{'b': 1, 'A': 2}|dictsort
{'b': 1, 'A': 2}|dictsort(true)
{'b': 1, 'A': 2}|dictsort(by='value')
{'b': 1, 'A': 2}|dictsort(by='nope')
{'b': 1, 'A': 2}|dictsort(false, 'key', true)
nested|items|list
{'a': 1}|items|first
nested|list
nested|length
nested|first
nested|last
nested|join('-')
nested|sort
nested|tojson(sort_keys=true)
nested|tojson(true)
nested|tojson(true, 2)
nested|tojson(indent='\\t')
nested|tojson(indent=0)
nested|tojson(indent=none)
nested|tojson(indent=-1)
nested|tojson(indent=true)
nested|tojson(indent='--', sort_keys=true)
nested|tojson(separators=(',', ':'))
nested|tojson(separators=[',', ':'])
nested|tojson(false, none, (',', ':'), true)
nested|tojson(separators=(',',))
nested|tojson(ensure_ascii=true)
nested|tojson(nope=1)
nested|tojson(1, 2, none, true, 5)
{'b': 2, 'a': 1}|tojson(sort_keys=true, separators=(',', ':'))
{1: 'a', none: 'b', true: 'c', 1.5: 'd'}|tojson
{(1, 2): 'a'}|tojson
{2: 'b', 1: 'a'}|tojson(sort_keys=true)
{2: 'b', 'a': 1}|tojson(sort_keys=true)
[1e16, 1e-7, 0.1, 1e999, -1e999, 1.0]|tojson
['"\\\\/\\n\\r\\t\\b\\f\\x01\\x7f', 'é😀']|tojson
['"\\\\/\\n\\r\\t\\b\\f\\x01\\x7f', 'é😀']|tojson(true)
[nothing]|tojson
(1, (2,))|tojson
[[], {}, [[]]]|tojson(indent=2)
[]|tojson(indent=2)
range(3)|tojson
big|tojson
'</script>&'|tojson
true|tojson
none|tojson
'a'|tojson|tojson
text|tojson|safe
text|escape|length
text|e|e
text|escape ~ '<'
text|safe ~ '<'
text|safe + '<'
'<' + text|safe
'<b>'|safe|upper
'<b>'|escape|safe
'<'|forceescape|forceescape
'<p>a <!-- c -->&lt;b&amp;&#39;</p>  <i>x\\n</i>'|striptags
'a b&c=d/é'|urlencode
{'a b': 'c&d', 'e': 1}|urlencode
[('a', 1), ('b', 'x y')]|urlencode
{'class': 'a', 'id': none, 'x': '<'}|xmlattr
{'class': 'a'}|xmlattr(false)
{'a b': 1}|xmlattr
{}|xmlattr
'foo bar baz qux'|truncate(9)
'foo bar baz qux'|truncate(9, true)
'foo bar baz qux'|truncate(11)
'foo bar baz qux'|truncate(11, false, '...', 0)
'foo bar baz qux'|truncate(length=7, end='~')
'foobarbazqux'|truncate(8, leeway=0)
'hello world'|title
'HELLO-wORLD (foo) [bar] {baz} <qux> it\\'s a.b'|title
'hello WORLD'|capitalize
''|title
'a\\nb\\n\\nc'|indent
'a\\nb\\n\\nc'|indent(2, true, true)
'a\\nb\\n'|indent(1)
'a\\r\\nb'|indent(1)
'\\na'|indent(3, first=true)
'  x  '|trim
'xxaxx'|trim('x')
'ab'|center(7)
'abc'|center(8)
'abc'|center
5|center(5)
'a-b c_d é'|wordcount
words|wordwrap(20)
words|wordwrap(20, break_on_hyphens=false)
words|wordwrap(5)
words|wordwrap(5, false)
words|wordwrap(0)
'abcdefghijklmnop'|wordwrap(5)
'a b\\nc d e f'|wordwrap(3)
''|wordwrap
0|filesizeformat
1|filesizeformat
999|filesizeformat
1000|filesizeformat
1024|filesizeformat(true)
1500000|filesizeformat
123456789012|filesizeformat(binary=true)
'x'|filesizeformat
2.5|round
3.5|round
0.125|round(2)
2.675|round(2)
-2.5|round
1234.5678|round(-2)
1234|round(-2)
1250|round(-2)
42.55|round(1, 'ceil')
42.55|round(1, 'floor')
42|round(1, 'ceil')
42.55|round(1, 'nope')
5|round
'5'|round
none|round
'12'|int
' 12 '|int
'12.7'|int
'1e3'|int
'abc'|int
'abc'|int(-1)
'abc'|int(default=none)
'ff'|int(0, 16)
'0xff'|int(base=16)
'0b11'|int(base=2)
'077'|int(base=8)
'1_000'|int
'z'|int(base=36)
-3.9|int
1e20|int
1e999|int
none|int
none|int(5)
[]|int
true|int
'1.5'|float
' 1.5 '|float
'1e3'|float
'nan'|float
'inf'|float
'-Infinity'|float
'abc'|float
'abc'|float(2.5)
none|float
1|float
'1_0.5'|float
nothing|int
nothing|float
nothing|default
nothing|default('x')
nothing|default(none)
''|default('x')
''|default('x', true)
none|default('x')
none|default('x', true)
none|default('x', boolean=true)
0|default(5, true)
nothing.x|default('y')
nothing|default(value='x')
nothing|list
nothing|upper
nothing|join
nothing|first
nothing|map('upper')|list
none|list
none|length
none|upper
none|join
none|first
5|list
5|length
5|first
5|upper
5|join
'abc'|list
'abc'|first
'abc'|last
'abc'|reverse
'abc'|join('-')
'abc'|sort
'abc'|max
'cab'|sort|join
'aAbB'|unique|join
'abc'|batch(2)|list
'abc'|random|length
(1, 2)|list
(3, 1)|sort
(1, 2)|reverse|list
range(3)|list
range(3)|reverse|list
range(3)|sum
range(3)|length
range(3)|last
{'a': 1}|attr('a')
{'a': 1}|attr('get') is callable
'a'|attr('upper') is callable
'a'|replace('a', 1)
'aaa'|replace('a', 'b', 2)
'a.b'|replace('.', '')
'abc'|replace('', '-')
none|replace('N', 'n')
{'b': [1, {'c': 'x' * 30}], 'a': ['y' * 20] * 4}|pprint
{'b': 1, 'a': 2}|pprint
'a'|pprint
[1, 'a', none]|pprint
numbers|unique|list
[1, 1.0, true, '1']|unique|list
[[1], [1]]|unique|list
[none, none]|unique|list
['b', 1]|sort
[[2, 'b'], [1, 'c'], [1, 'a']]|sort
[true, false, 2]|sort
[2.5, 1]|sort
[1, 2, 3]|sum(start=0.5)
['a']|sum
[[1], [2]]|sum(start=[])
text|upper|lower|title
text|lower()|length
('a', 'b')|join
[1, [2, 3]]|join(',')
[none, true, 1.0]|join(',')
[nothing, 1]|join(',')
'a'|upper is upper
1|string|length
1.0|string
1e16|string
[1e16]|string
'a' | upper ~ 'b' | upper
numbers | length > 3
(numbers | length) ** 2
""")
    )


TESTS = ["boolean", "callable", "defined", "escaped", "even", "false", "filter", "float", "integer", "iterable", "lower", "mapping", "none", "number", "odd", "sequence", "string", "test", "true", "undefined", "upper", "nope", "divisibleby 2", "divisibleby(0)", "eq 1", "ne 1", "gt 1", "lt(2)", "in [1, 2]", "sameas true", "sameas none", "equalto 'a'", "lessthan 2", "greaterthan 0", "le 1", "ge 1", "not none", "not defined", "string is true"]
TESTED = ["1", "2", "-3", "1.0", "true", "false", "none", "'a'", "'A'", "''", "'upper'", "[1]", "(1,)", "{'a': 1}", "nothing", "range(3)", "namespace()", "joiner()", "text|safe", "names|map('upper')", "cycler(1)", "nested.items()", "raise_exception"]


def tests():
    for value, test in itertools.product(TESTED, TESTS):
        show(f"{value} is {test}")
    show("1 is odd and 2 is even", "not 1 is odd", "1 is not odd", "x is defined or 1 is odd", "1 + 1 is even", "(1 + 1) is even",
         "[1] is sameas [1]", "none is sameas none", "1 is sameas 1.0", "1 is sameas true", "'a' is in 'abc'", "1 is divisibleby", "1 is gt 'a'",
         "nested.a is true", "-1 is number", "1 is odd if true else 2", "'a' is eq 'a' and true", "numbers[0] is divisibleby numbers[2]")


def tags():
    add(
        *lines("""
{% for i in numbers %}{{ i }}{% endfor %}
{% for i in numbers %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}
{% for i in numbers %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}
{% for i in numbers %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}
{% for i in numbers %}{{ loop.cycle('a', 'b') }}{% endfor %}
{% for i in [1, 1, 2, 2, 1] %}{{ loop.changed(i) }} {% endfor %}
{% for i in numbers if i > 1 %}{{ loop.index }}:{{ i }} {% endfor %}
{% for i in numbers if i > 99 %}x{% else %}empty{% endfor %}
{% for i in [] %}x{% else %}empty{% endfor %}
{% for i in nothing %}x{% else %}empty{% endfor %}
{% for i in none %}x{% else %}empty{% endfor %}
{% for i in 5 %}x{% endfor %}
{% for i in 'abc' %}{{ i }}-{% endfor %}
{% for k in nested %}{{ k }} {% endfor %}
{% for k, v in nested.items() %}{{ k }}={{ v }} {% endfor %}
{% for k, v in nested|items %}{{ k }}={{ v }} {% endfor %}
{% for k, v in nested|dictsort %}{{ k }} {% endfor %}
{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{{ a }}{% endfor %}
{% for a, b in [1] %}{{ a }}{% endfor %}
{% for a, b in ['xy', 'zw'] %}{{ a }}{{ b }} {% endfor %}
{% for i in 1, 2, 3 %}{{ i }}{% endfor %}
{% for i in (1, 2) %}{{ i }}{% endfor %}
{% for i in range(3) %}{{ loop.length }}{{ loop.last }}{% endfor %}
{% for i in range(10, 0, -3) %}{{ i }} {% endfor %}
{% for i in range(0) %}x{% endfor %}
{% for i in range(1, 2, 0) %}x{% endfor %}
{% for i in range(200000) %}x{% endfor %}
{% for i in names|map('upper') %}{{ loop.index }}{{ i }}{{ loop.last }}{{ loop.length }} {% endfor %}
{% for i in numbers|sort|reverse %}{{ i }}{{ loop.last }} {% endfor %}
{% for g, l in people|groupby('age') %}{{ g }}:{{ l|length }} {% endfor %}
{% for g in people|groupby('age') %}{{ g.grouper }}:{{ g.list|map(attribute='name')|join(',') }} {% endfor %}
{% for row in numbers|batch(2) %}{{ row }} {% endfor %}
{% for i in numbers %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for i in numbers %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}
{% for i in [1, 2] %}{% for j in [3, 4] %}{{ i }}{{ j }}{{ loop.depth }} {% endfor %}{% endfor %}
{% for i in [1, 2] %}{% set outer = loop %}{% for j in [3, 4] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}
{% for n in tree recursive %}{{ n.v }}{% if n.c %}({{ loop(n.c) }}){% endif %}{% endfor %}
{% for n in tree recursive %}{{ loop.depth }}{{ loop(n.c) }}{% endfor %}
{% for i in numbers %}{% set x = i %}{% endfor %}{{ x }}
{% set x = 1 %}{% for i in numbers %}{% set x = x + i %}{% endfor %}{{ x }}
{% set ns = namespace(x=1) %}{% for i in numbers %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}
{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b }}{{ ns.b is defined }}
{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}
{% set ns = namespace(a=1) %}{{ ns }}
{% set ns = namespace(a=1) %}{{ ns['a'] }}{{ ns is mapping }}
{% set ns = namespace(a=[]) %}{% for i in [1, 2] %}{% set ns.a = ns.a + [i] %}{% endfor %}{{ ns.a }}
{% set ns = namespace(items=1, count=2) %}{{ ns.items }}{{ ns.count }}
{% set ns.x = 1 %}
{% set d = {} %}{% set d.x = 1 %}
{% set ns = namespace() %}{% set ns._x = 1 %}
{{ namespace(_x=1) }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}
{% set a, b = [3, 4] %}{{ a }}{{ b }}
{% set a, b = 1 %}
{% set a, b = 1, 2, 3 %}
{% set a = 1, 2 %}{{ a }}
{% set (a, b) = (1, 2) %}{{ a }}{{ b }}
{% set ns = namespace() %}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}
{% set x %}a{{ 1 }}b{% endset %}{{ x }}|{{ x|length }}
{% set x | upper %}abc{% endset %}{{ x }}
{% set x | replace('a', 'b') | upper %}aac{% endset %}{{ x }}
{% set x = 'a' if false %}[{{ x }}]{{ x is defined }}
{% if true %}{% set x = 1 %}{% endif %}{{ x }}
{% if 0 %}a{% elif '' %}b{% elif [] %}c{% else %}d{% endif %}
{% if nothing %}a{% else %}b{% endif %}
{% if nothing.x %}a{% endif %}
{% if 1 %}a{% endif %}{% if none %}b{% endif %}
{% if names|map('upper') %}a{% endif %}
{% with %}{% set x = 1 %}{{ x }}{% endwith %}{{ x }}
{% with x=1, y=2 %}{{ x }}{{ y }}{% endwith %}{{ x }}
{% set x = 1 %}{% with x=2, y=x %}{{ x }}{{ y }}{% endwith %}{{ x }}
{% with a, b = (1, 2) %}{{ a }}{{ b }}{% endwith %}
{% macro f(a, b=2) %}[{{ a }},{{ b }}]{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(b=5) }}{{ f(1, b=4) }}{{ f() }}
{% macro f(a, b=a) %}[{{ a }},{{ b }}]{% endmacro %}{{ f(1) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=2) }}
{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, a=2) }}
{% macro f(a) %}{{ a }}{{ varargs }}{% endmacro %}{{ f(1, 2, 3) }}{{ f(1) }}
{% macro f(a) %}{{ a }}{{ kwargs }}{% endmacro %}{{ f(1, x=2, y=3) }}{{ f(1) }}
{% macro f() %}{{ varargs|join(',') }}|{{ kwargs|dictsort }}{% endmacro %}{{ f(1, 2, x=3) }}{{ f() }}
{% macro f(a) %}{% for v in varargs %}{{ v }};{% endfor %}{% endmacro %}{{ f(1, *[2, 3]) }}
{% macro f(a, b) %}{{ a }}{{ b }}{{ kwargs }}{% endmacro %}{{ f(*[1], **{'b': 2, 'c': 3}) }}
{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}
{% macro f(n) %}{{ n }}{{ varargs }}{% if n > 0 %}{{ f(n - 1, n) }}{% endif %}{% endmacro %}{{ f(2) }}
{% macro f() %}a{% endmacro %}{{ f() ~ f()|upper }}{{ f()|length }}
{% macro f() %}a{% endmacro %}{{ f }}
{% macro f(x, y=1) %}a{% endmacro %}{{ f.name }}{{ f.arguments }}{{ f.caller }}{{ f.catch_kwargs }}{{ f.catch_varargs }}
{% macro f(a) %}{{ varargs }}{% endmacro %}{{ f.name }}{{ f.arguments }}{{ f.catch_varargs }}
{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{% endcall %}
{% macro f() %}{{ caller(1, 2) }}{% endmacro %}{% call(a, b) f() %}{{ a }}+{{ b }}{% endcall %}
{% macro f(x) %}{{ x }}{{ caller(x) }}{% endmacro %}{% call(a, b=5) f(3) %}{{ a }}{{ b }}{% endcall %}
{% macro f() %}{{ caller is defined }}{% endmacro %}{{ f() }}
{% macro f() %}{% if caller %}{{ caller() }}{% else %}none{% endif %}{% endmacro %}{{ f() }}{% call f() %}x{% endcall %}
{% macro f() %}a{% endmacro %}{% call f() %}x{% endcall %}
{% macro f() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ f() }}
{% set x = 1 %}{% macro f() %}{{ x }}{% set x = 2 %}{{ x }}{% endmacro %}{{ f() }}{{ x }}
{% macro f() %}{{ 1 }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ g() }}
{% for i in [1, 2] %}{% macro f() %}{{ i }}{% endmacro %}{{ f() }}{% endfor %}
{% macro f() %}{{ loop }}{% endmacro %}{% for i in [1] %}{{ f() }}{% endfor %}
{% filter upper %}abc{{ 'd' }}{% endfilter %}
{% filter replace('a', 'b')|upper %}aac{% endfilter %}
{% filter indent(2) %}a\nb{% endfilter %}
{% raw %}{{ x }}{% y %}{% endraw %}z
{% raw -%}  a  {%- endraw %}z
{# a comment #}x{#- trimmed -#}  y
{% block a %}x{% endblock %}
{% block a %}x{% endblock a %}{{ self.a() }}
{% autoescape true %}{{ '<' }}{{ '<'|safe }}{% endautoescape %}{{ '<' }}
{% autoescape true %}{{ text ~ text|safe }}{{ [text, text|safe]|join }}{{ text ~ 1 }}{{ {'a': '<'}|xmlattr }}{% endautoescape %}
{% autoescape false %}{{ '<' }}{% endautoescape %}
{% generation %}a{% set x = 1 %}{{ x }}{% endgeneration %}{{ x }}
{% for i in [1, 2] %}{% generation %}{{ i }}{% endgeneration %}{% endfor %}
{% do 1 %}
{% include 'a' %}
{% nope %}
{% if 1 %}a
{% endif %}
{% for i in x
{{ 1
{{ 1 }
{{ 'a }}
{{ a b }}
{{ 1 + }}
{{ }}
{{ ) }}
{{ [1, 2 }}
{{ {'a' 1} }}
{% set = 1 %}
{% set 1 = 1 %}
{% for 1 in x %}{% endfor %}
{% break %}
{% macro %}{% endmacro %}
{% set true = 1 %}
{% set x = 5 %}{{ x }}{% set x = x + 1 %}{{ x }}
{{ range(3) }}{{ range(1, 9, 2) }}
{{ range(3)|list }}{{ range(5, 0, -2)|list }}{{ range(-1)|list }}
{{ range() }}
{{ range('a') }}
{{ range(1.5) }}
{{ range(true)|list }}
{{ dict() }}{{ dict(a=1) }}{{ dict([('a', 1)], b=2) }}{{ dict({'a': 1}, a=3) }}
{{ dict(1) }}
{{ dict([1]) }}
{% set j = joiner() %}{{ j() }}a{{ j() }}b{{ j() }}
{% set j = joiner('|') %}{{ j() }}{{ j() }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}
{{ cycler() }}
{% set g = names|map('upper') %}{{ g|list }}{{ g|list }}
{{ raise_exception('no') }}
{{ strftime_now('%Y-%m-%d') }}
{{ strftime_now('%d %B %Y, %H:%M:%S') }}
{{ strftime_now('%a %A %b %h %p %I %j %y %e %-d %-m %U %W %u %w %V %G') }}
{{ strftime_now('%c|%x|%X|%D|%F|%T|%R|%r|%n|%t|%%|%z|%Z|%f|%C') }}
{{ strftime_now('no format') }}
{{ strftime_now('%Q %! %') }}
{{ strftime_now(5) }}
{{ strftime_now is defined }}{{ raise_exception is defined }}{{ lipsum is defined }}{{ debug is defined }}{{ zip is defined }}
{{ strftime_now(format='%Y') }}
{% set j = joiner(sep='-') %}{{ j() }}a{{ j() }}b
{{ 'ſ ﬃ Ꭰ ꭰ İ ς ß ΐ ﬗ ᾳ ẞ'.casefold() }}
{{ 'ǆ ŉa aǆa'.title() }}|{{ 'ǆa'.capitalize() }}|{{ 'ŉa'.capitalize() }}|{{ 'ﬃa'.title() }}|{{ 'ჩა'.title() }}|{{ 'ჩა'|title }}
{{ '１'|int }} {{ '1٢'|int }} {{ '１.５'|float }} {{ '१२'|int }} {{ '²'|int }}
{{ '𝟙'.isdecimal() }} {{ '๓'.isdigit() }} {{ '²'.isdecimal() }} {{ '²'.isdigit() }}
{% set a, b = 'xy' %}{{ b }}{{ a }}
{% set a, b = 'xyz' %}{{ b }}
{% set a, b = {'k': 1, 'l': 2} %}{{ b }}
{% set a, b = {'k': 1, 'l': 2}.items() %}{{ b }}
{% set a, b = range(2) %}{{ b }}
{% set a, b = names|map('upper') %}{{ b }}
{% set a, b = numbers[:2]|map('abs') %}{{ b }}
{% set a, (b, c) = 'x', 'yz' %}{{ c }}
{% set a, b = 5 %}
{% set a, b = none %}
{{ namespace(a=1)|tojson }}
{{ '{0}{}'.format(1, 2) }}
{{ '{}{0}'.format(1, 2) }}
{{ '{0}{0}'.format(1, 2) }}
{{ '{:{}}|'.format('a', 5) }}
{{ '{0:{}}|'.format('a', 5) }}
{{ '{:{0}}|'.format('a', 5) }}
{{ '{0:{1}}|'.format('a', 5) }}
{{ '{}{a}'.format(1, a=2) }}
{{ '%(a)s %s' % {'a': 1} }}
{{ '%s %(a)s' % {'a': 1} }}
{{ '%(a)s %(a)s' % {'a': 1} }}
{{ '%s' % {'a': 1} }}
{{ 01 }}
{{ 1__0 }}
{{ 1_ }}
{{ 00 }} {{ 0_0 }} {{ 0x_F }} {{ 1_0.0_1 }} {{ 1e1_0 }}
{{ 0xF_ }}
{{ 0x__F }}
{{ 01.5 }}
{{ 1_0__0.5 }}
{{ dict.fromkeys() }}
{{ strftime_now('%5Y|%Ey|%Od|%EY|%OH|%_5d|%05e|%3S|%Ed|%Ea|%E|%O') }}
{{ strftime_now('%-3d') }}
{{ strftime_now('%s') }}
{{ [1, 2, 3][1.0] }}
{{ dict.fromkeys(['a', 'b'], 1) }}
{{ loop }}
{{ self is defined }}
{{ x.y.z is defined }}
{{ 'a' is not defined }}
{% set a = [1] %}{% set b = a %}{% set a = a + [2] %}{{ b }}
{{ (names|map('upper')|list)[0] }}
{{ people[0]['name'].upper()[0] }}
{{ ('a' ~ 1).upper() }}
{{ {'a': names}['a'][1:]|join('+') }}
{{ text.split(',')[0].strip().lower() }}
{{ lines.split('\n')|length }}
{{ (1, 2) + (3,) }}
{{ not (1 in [1]) }}
{{ 1 if (2 if 0 else 0) else 3 }}
{{ {} is mapping and [] is sequence }}
{{ [1, 2][-1] }}{{ [1, 2][true] }}{{ 'ab'[true] }}
{{ {'a': 1, 'a': 2} }}{{ {1: 1, 1.0: 2, true: 3} }}
{{ {[1]: 2} }}
{{ foo(1) }}
{{ foo.bar(1) }}
{{ text(1) }}
{{ 5() }}
{{ numbers.0 }}{{ people.0.name }}
{{ nested.b['y'].2['z'] is none }}
{{ 'x' if text else 'y' }}{{ 'x' if '' else 'y' }}
{{ "a\\nb" }}{{ 'a\\\\nb' }}{{ "tab\\there" }}
{{ 'multi
line' }}
{{ 1 }}{{- 2 -}} {{ 3 }}
{{+ 5 }}
""".replace("\\n{% endfilter", "\n{% endfilter"))
    )
    whitespace = ["{% if 1 %}", "{%- if 1 %}", "{% if 1 -%}", "{%- if 1 -%}", "{%+ if 1 %}", "{% if 1 +%}", "{%+ if 1 +%}"]
    for tag in whitespace:
        add(f"a\n  {tag}\n  b\n  {{% endif %}}\nc\n", f"a {tag} b {{% endif %}} c", f"\t{tag}\n\n\tx{{% endif %}}\n\n")
    for mark, comment in itertools.product(["", "-"], ["{#%s c %s#}"]):
        for end in ["", "-", "+"]:
            add("a\n  " + comment % (mark, end) + "\n  b\n")
    add("a\n  {{ 1 }}\n  b\n", "a\n  {{- 1 -}}\n  b\n", "x\n", "x\n\n", "\n", "", "  ", "\nx", "x\r\n", "a\r\nb\rc\n",
        "{% if 1 %}\r\na\r\n{% endif %}\r\nb", "{{ 'a\r\nb'|length }}", "{{ 'a\rb'|tojson }}", "{% set x %}a\r\n{% endset %}{{ x|tojson }}",
        "a{% raw %}\n  x\n{% endraw %}\nb", "  {% raw %}x{% endraw %}  \ny", "{%- raw -%} x {%- endraw -%} y",
        "{% for i in [1, 2] %}\n{{ i }}\n{% endfor %}\n", "{% for i in [1, 2] -%}\n{{ i }}\n{%- endfor %}\n",
        "{% set x = 1 %}\n{{ x }}\n", "{% macro f() %}\n a\n{% endmacro %}\n{{ f() }}|", "{# c #}\n{# d #}\nx", "{ {a} }", "{{ '{{' }}{{ '%}' }}",
        "{{ {'a': {'b': 1}} }}", "{{ {'a': {}}}}", "%}", "}}", "#}", "{{\n1\n}}\n{%\nif 1\n%}x{% endif %}", "{% generation %}\na\n{% endgeneration %}\nb")


def outcome(template):
    try:
        text = chat_template_utils._compile_jinja_template(template).render(copy.deepcopy(VARIABLES))
        text.encode()
        return text
    except Exception:
        return None


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def main():
    chat_template_utils.datetime = Clock
    for make in [literals_and_operators, methods, formats, filters, tests, tags]:
        make()
    pairs = [(template, outcome(template)) for template in dict.fromkeys(SNIPPETS)]
    pairs = [(template, text) for template, text in pairs if " at 0x" not in (text or "")]
    head = {"variables": VARIABLES, "now": NOW.isoformat()}
    with OUT.open("w") as out:
        out.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "snippets": [\n')
        out.write(",\n".join(json.dumps(pair, ensure_ascii=False) for pair in pairs) + "\n]}\n")
    n_errors = sum(text is None for _, text in pairs)
    print(f"{len(pairs)} snippets, {n_errors} of which fail")


if __name__ == "__main__":
    main()
