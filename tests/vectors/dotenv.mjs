// Writes dotenv.json: texts of `.env` files and what Node's dotenv 17 reads from them.
//
//   npm install --no-save dotenv@17 && node tests/vectors/dotenv.mjs > tests/vectors/dotenv.json
//
// The random ones come from a fixed seed, so that the same dotenv gives the same file.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(process.cwd() + '/')
const dotenv = require('dotenv')
const { version } = JSON.parse(readFileSync(require.resolve('dotenv/package.json')))

const byHand = [
  '', '\n', ' ', '#', '# only a comment', 'A', 'A=', 'A=1', 'A = 1', ' A=1 ', '\tA\t=\t1\t', 'A=1\n', 'A=1\r\nB=2\r\n', 'A=1\rB=2',
  'A=1\nA=2', 'A=\nB=2', 'A=\n\nB=2', 'A\n=1', 'A=\n"next line"', "A=\n\n 'two on'", 'A = \n`b` ', 'A:\nB=2', 'A: 1', 'A:1', 'A:  1 # c', 'A : 1',
  'export A=1', 'export  A=1', 'export\nA=1', 'export=1', 'export =1', 'export: 1', 'exportA=1', 'export export=1', 'EXPORT A=1',
  'a.b-c_D9=1', '9=1', '-=1', '.=1', 'A B=1', 'ä=1', 'A$=1', '=1', '==1', 'A==1', 'A=b=c', 'A= =',
  'A=x # comment', 'A=x#comment', 'A=#comment', 'A= # comment', 'A=x \\# y', '#A=1', ' # A=1', '# A=1\nB=2', 'A=1\n# it\'s\nB=2', 'A=1 #"\nB=2',
  "A='1'", 'A="1"', 'A=`1`', "A=''", 'A=""', 'A=``', "A=' 1 '", 'A=" 1 "', "A='a#b'", 'A="a#b"', 'A=`a#b`', 'A="a" # "b"', 'A="a" b', 'A="a"b', 'A=a"b"', "A=a'b'c",
  'A="a', "A='a", 'A=`a', 'A=a"', 'A="', "A='", 'A="""', "A='''", 'A=""""', 'A="a" "b"', 'A="a" \'b\'', 'A=\'a"', 'A="a\'b"', "A='a\"b'", 'A=`a\'"b`',
  'A="a\nb"', "A='a\nb'", 'A=`a\nb`', 'A="a\r\nb"', 'A="a\n\nB=2\n"\nC=3', 'A="a\nB=2', 'A=\'a\nB=\'2\'', 'A="x\ny" # c\nB=2', 'A="x\ny" z\nB=2',
  'A="a\\nb"', "A='a\\nb'", 'A=`a\\nb`', 'A=a\\nb', 'A="a\\rb"', 'A="a\\tb"', 'A="a\\\\nb"', 'A="\\n" x', 'A=" \\n', 'A="a\\r\\nb"',
  'A="a\\"b"', "A='a\\'b'", 'A=`a\\`b`', 'A="a\\"', "A='a\\'", 'A="a\\"\nB="2"', 'A="a\\" # c', 'A="a\\"b" c', 'A="a\\"b\\"" d\nB="', "A='\\'' '\\'\nB=1", 'A="\\\\"', 'A="a\\\\" b\nC="d"',
  'A=$B', 'A=${B}', 'A="$B"', 'A=\\$B', 'A=`id`', 'A=$(id)', 'A={"foo": "bar"}', 'A=\'{"X-Key":"a b","n":1}\'', 'A={"a":"#"}', 'REMOTE_HEADERS={"Authorization": "Bearer x"}',
  'REMOTE_URL=http://u:p@h:1/p?a=b#frag', 'REMOTE_URL="http://u:p@h:1/p?a=b#frag"', 'MAIL=a@b.c', 'P=C:\\temp\\new', 'P="C:\\temp\\new"', 'SP=a  b   c  ',
  '\ufeffA=1', '\ufeff# c\nA=1', '\u00a0A\u00a0=\u00a01\u00a0', 'A=\u30001\u2003', 'A=\u200b1', 'A=\u00851', '\u0085A=1', '\u180eA=1', 'A=ü€😀', 'A="😀\n😀"', 'A=a\u2028B=2', 'A=a\u2028"b"', 'A="a"\u2028b', 'A="a"\u2029"b"', 'A=1 #c\u2028B=2', 'A\u2028=1', '#c\u2028A=1', 'A="x" \u2028y',
  'A=1;B=2', 'A=1 B=2', 'A=1,2', 'A=a\\', 'A=\\', 'A=\u0000', 'A=\u000b1\u000c', 'A=true\nB=false\nC=null', 'garbage\nA=1\n???\nB=2', 'A=1\ngarbage', 'garbage line = x', 'A\nB\nC=1', '"A"=1', "'A'='1'",
  'WEBSOCKET_PORT=3000\nWEBSOCKET_PING_INTERVAL=30000\nREDIS_HOST=127.0.0.1\nREDIS_PORT=6379\nREDIS_DB=0\nREDIS_PREFIX=fastsock\nREMOTE_URL=http://127.0.0.1:8080/in\nREMOTE_HEADERS={"A":"b"}\n',
]

let seed = 20240817
const random = (n) => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
  return Math.floor((seed / 2 ** 32) * n)
}
const pieces = ['A', 'B', 'KEY', 'export ', '=', '=', '=', ':', ': ', ' ', ' ', '\t', '\n', '\n', '\n', '\r\n', '\r', '#', '"', '"', "'", "'", '`', '\\', '\\n', '\\r', '\\"', "\\'", 'x', 'y z', '1', 'é', '\u00a0', '\u2028', '\ufeff', '$', '${A}', '.', '-', '\n\n']
const atRandom = Array.from({ length: 400 }, () =>
  Array.from({ length: 2 + random(24) }, () => pieces[random(pieces.length)]).join(''))

const cases = [...byHand, ...atRandom].map((input) => ({ input, parsed: dotenv.parse(input) }))
const lines = cases.map((c) => '    ' + JSON.stringify(c))
process.stdout.write(`{\n  "made_by": "tests/vectors/dotenv.mjs with dotenv ${version}",\n  "cases": [\n${lines.join(',\n')}\n  ]\n}\n`)
