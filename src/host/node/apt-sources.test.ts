import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { parseAptConfiguration, proxyFor, readAptSettings } from "./apt-sources.js";

describe("apt's settings", () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "enlighten-apt-"));
  });
  afterEach(() => rm(root, { recursive: true }));
  const put = async (path: string, text: string): Promise<void> => {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  };

  it("give mirrors from deb822 files, without other vendors', disabled and source lines", async () => {
    await put(
      "etc/apt/sources.list.d/debian.sources",
      `Types: deb deb-src
# a comment between fields
URIs: http://mirror.test/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://disabled.test/debian
Suites: bookworm
Components: main
`,
    );
    await put(
      "etc/apt/sources.list.d/tool.sources",
      "Types: deb\nURIs: http://vendor.test/apt\nSuites: stable\nComponents: main\nSigned-By: /etc/vendor.gpg\n",
    );
    await put(
      "etc/apt/sources.list.d/old.sources.disabled",
      "Types: deb\nURIs: http://old.test/debian\nSuites: bookworm\nComponents: main\n",
    );
    const { main, security } = await readAptSettings(root);
    assert.deepEqual(main, ["http://mirror.test/debian"]);
    assert.deepEqual(security, ["http://mirror.test/debian-security"]);
  });

  it("give mirrors from one-line lists and from mirror lists", async () => {
    await put(
      "etc/apt/sources.list",
      `# deb http://comment.test/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://a.test/debian bookworm main # own
deb-src http://source.test/debian bookworm main
deb http://s.test/debian-security bookworm-security main
deb http://u.test/ubuntu jammy main
deb http://d.test/linux/debian bookworm stable
deb cdrom:[disc]/ bookworm main
deb mirror+file:/etc/apt/mirrors/list bookworm main
`,
    );
    await put("etc/apt/mirrors/list", "http://m1.test/debian\tpriority:1\nhttp://m2.test/debian\n");
    const { main, security } = await readAptSettings(root);
    assert.deepEqual(main, ["https://a.test/debian", "http://m1.test/debian", "http://m2.test/debian"]);
    assert.deepEqual(security, ["http://s.test/debian-security"]);
  });

  it("are empty on a host without apt", async () => {
    const { main, security, configuration } = await readAptSettings(root);
    assert.deepEqual([main, security, configuration.size], [[], [], 0]);
  });

  it("are read from nested and flat configuration, the later file winning", async () => {
    await put("etc/apt/apt.conf.d/10a", 'Acquire { http { Proxy "http://p.test:1"; }; Check-Valid-Until "false"; };\n');
    await put(
      "etc/apt/apt.conf.d/20b.conf",
      '// c\nAcquire::http::Proxy "http://p.test:2"; # d\n/* e\n*/Acquire::http::Proxy::direct.test DIRECT;\n',
    );
    await put("etc/apt/apt.conf.d/30c.bak", 'Acquire::http::Proxy "http://bad.test";');
    const { configuration } = await readAptSettings(root);
    assert.equal(configuration.get("acquire::http::proxy"), "http://p.test:2");
    assert.equal(configuration.get("acquire::check-valid-until"), "false");
    assert.equal(proxyFor(new URL("http://x.test/"), configuration, {}), "http://p.test:2");
    assert.equal(proxyFor(new URL("https://x.test/"), configuration, {}), "http://p.test:2");
    assert.equal(proxyFor(new URL("http://direct.test/"), configuration, { http_proxy: "http://e.test" }), undefined);
    assert.equal(parseAptConfiguration('DPkg::Post-Invoke { "a"; "b // c"; };\nA::B "x;y";').get("a::b"), "x;y");
  });

  it("leave the proxy to the environment otherwise", () => {
    const environment = { http_proxy: "http://e.test:3", HTTPS_PROXY: "http://s.test:4", no_proxy: "a.test, .b.test" };
    const proxies = ["http://x.test", "https://x.test", "http://a.test", "http://www.b.test"].map((url) =>
      proxyFor(new URL(url), new Map(), environment),
    );
    assert.deepEqual(proxies, ["http://e.test:3", "http://s.test:4", undefined, undefined]);
  });
});
