/** Which modules must be loaded, and in what order, so that the wanted ones work. */
import { damaged } from "./errors.js";
import { type ModuleInfo, moduleName } from "./modinfo.js";

/**
 * Every wanted module with all it depends on, dependencies first. A wanted name that is in neither set is left out:
 * what is a module in one kernel is built into the next, and absent from a third.
 *
 * @param builtIn names from the kernel's modules.builtin: a dependency on these is met already
 */
export function loadOrder(
  wanted: readonly string[],
  modules: ReadonlyMap<string, ModuleInfo>,
  builtIn: ReadonlySet<string> = new Set(),
): ModuleInfo[] {
  const order: ModuleInfo[] = [];
  const state = new Map<string, "open" | "done">();
  const visit = (module: ModuleInfo): void => {
    const seen = state.get(module.name);
    if (seen === "done") return;
    if (seen === "open") throw damaged("kernel package", `module ${module.name} depends on itself`);
    state.set(module.name, "open");
    for (const name of module.depends) {
      const dependency = modules.get(name);
      if (dependency !== undefined) visit(dependency);
      else if (!builtIn.has(name)) {
        throw damaged("kernel package", `module ${module.name} depends on ${name}, which is not there`);
      }
    }
    for (const name of module.softBefore) {
      const dependency = modules.get(name);
      if (dependency !== undefined && state.get(name) !== "open") visit(dependency);
    }
    state.set(module.name, "done");
    order.push(module);
  };
  for (const name of wanted) {
    const module = modules.get(moduleName(name));
    if (module !== undefined) visit(module);
  }
  return order;
}

/** A modules.dep as depmod writes it: "path: dependencies' paths", nearest dependency first. */
export function writeModulesDep(
  modules: readonly ModuleInfo[],
  pathOf: (module: ModuleInfo) => string,
  all: ReadonlyMap<string, ModuleInfo>,
  builtIn: ReadonlySet<string>,
): string {
  return modules
    .map((module) => {
      const before = loadOrder([module.name], all, builtIn).filter((other) => other !== module);
      return `${[`${pathOf(module)}:`, ...before.reverse().map(pathOf)].join(" ")}\n`;
    })
    .join("");
}

export function writeModulesAlias(modules: readonly ModuleInfo[]): string {
  return modules.flatMap((module) => module.aliases.map((alias) => `alias ${alias} ${module.name}\n`)).join("");
}
