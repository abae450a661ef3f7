from e2e.driver import Driver
from e2e import program
def test_try(driver: Driver) -> None:
    done = program.run(driver.system.emulator, "--stack", driver.system.stack.name, "status")
    print(done.output, done.progress, done.status)
    assert 0
