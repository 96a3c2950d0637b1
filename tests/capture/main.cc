extern "C" void drive();

int main()
{
    drive();
}
